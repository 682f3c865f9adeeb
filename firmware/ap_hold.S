// The application processors of a SEV-ES guest, from their first SIPI to their hold and from there to the operating system.
// Runs in place, in the page below the reset page. GHCB specification (AMD 56421) sections 4.1.7 and 4.3; APM vol. 2 section 15.35.
//
// Each has a GHCB of its own, for the hypervisor writes to the page of a processor that it lets go. In real mode all memory is
// private, so each goes to 64-bit mode, with the page tables that processors.cpp made, fills its page itself and holds by it. A
// hypervisor may wake it for other reasons than a SIPI: it fills the page anew and holds again. An NMI then is told to be over,
// which the hypervisor cannot see by itself and without which there is never another one.
//
// Only registers are used, but for the stack that an NMI needs. EBP: an NMI came. EBX: the GHCB. ESI: which processor this is.
#include "firmware/layout.h"

#define MSR_EFER 0xc0000080
#define MSR_GHCB 0xc0010130
#define CR0_PE 1
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define EFER_LME 0x100
#define GATE_64 0x8e00 /* present, DPL 0, 64-bit interrupt gate */
#define VMGEXIT .byte 0xf3, 0x0f, 0x01, 0xd9

#define EXIT_MSR 0x7c
#define EXIT_NMI_COMPLETE 0x80000003
#define EXIT_AP_RESET_HOLD 0x80000004

// Fields of the GHCB (section 2.5, table 3), and their valid bits: one for each 8 bytes from the page's begin.
#define GHCB_RAX 0x1f8
#define GHCB_RCX 0x308
#define GHCB_RDX 0x310
#define GHCB_EXIT_CODE 0x390
#define GHCB_EXIT_INFO_1 0x398
#define GHCB_EXIT_INFO_2 0x3a0
#define GHCB_VALID 0x3f0
#define GHCB_VERSION 0xffa

#define SELECTOR_CODE16 0x20
#define SELECTOR_DATA16 0x28

// Low halves of addresses in this page are constants to the assembler.
#define OFFSET16(symbol) ((symbol) - hold_page + (FW_HOLD_PAGE & 0xffff))

  .section .hold, "ax"
  .globl hold_page, ap_start16
hold_page:

// ---- 16 bits, as the first SIPI finds it: real mode, all registers reset ------------------------------------------------

  .code16
ap_start16:
  cli
  cld
  xorw %ax, %ax
  movw %ax, %ds
  movl $1, %esi
  lock xaddl %esi, FW_AP_COUNT
  cmpl FW_AP_LIMIT, %esi
  jae 1f
  lgdtl %cs:OFFSET16(hold_gdt_pointer)
  movl %cr4, %eax
  orl $CR4_PAE, %eax
  movl %eax, %cr4
  movl FW_AP_TABLES, %eax
  movl %eax, %cr3
  movl $MSR_EFER, %ecx
  rdmsr
  orl $EFER_LME, %eax
  wrmsr
  movl %cr0, %eax
  orl $(CR0_PE | CR0_PG), %eax
  movl %eax, %cr0
  ljmpl $FW_SELECTOR_CODE64, $ap_start64
1:                            // one more than there should be
  hlt
  jmp 1b

// ---- 64 bits -------------------------------------------------------------------------------------------------------------

  .code64
ap_start64:
  movl $FW_SELECTOR_DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  leal 1(%rsi), %eax
  shll $FW_AP_STACK_SHIFT, %eax
  addl FW_AP_STACKS, %eax
  movl %eax, %esp
  xorl %ebp, %ebp
  lidt hold_idt_pointer(%rip)
  movl %esi, %ebx
  shll $12, %ebx
  addl FW_AP_GHCBS, %ebx
  movl $MSR_GHCB, %ecx
  movl %ebx, %eax
  xorl %edx, %edx
  wrmsr

  // The memory type that the first processor has. What the hypervisor answers is of no matter: the operating system sets the types
  // again, and says so if they were wrong.
  cmpl $0, FW_AP_MSR
  je 1f
  movl $EXIT_MSR, %r8d
  movl $1, %r9d               // write
  leaq 1f(%rip), %r10
  jmp request
1:
  lock incl FW_AP_DONE

hold:
  leaq 1f(%rip), %r10
  jmp end_nmi
1:
  movl $EXIT_AP_RESET_HOLD, %r8d
  xorl %r9d, %r9d
  leaq 2f(%rip), %r10
  jmp request
2:
  testl %r11d, %r11d
  jnz 4f
  testq %rax, %rax
  jz hold                     // no SIPI
  cmpl $0, FW_AP_JUMP_TABLE
  je hold                     // nowhere to go yet
  leaq 3f(%rip), %r10
  jmp end_nmi
3:
  lidt real_idt_pointer(%rip)
  ljmpl *leave16_pointer(%rip)
4:
  movl $(FW_FAILURE_AP_HOLD << 16 | 0x1100), %eax
  xorl %edx, %edx
  movl $MSR_GHCB, %ecx
  wrmsr
  VMGEXIT
5:
  hlt
  jmp 5b

// Goes on at R10, once the hypervisor knows that an NMI is over, if there was one.
end_nmi:
  testl %ebp, %ebp
  jnz 1f
  jmp *%r10
1:
  xorl %ebp, %ebp
  movl $EXIT_NMI_COMPLETE, %r8d
  xorl %r9d, %r9d

// Sends exit code R8 with exit_info_1 R9, for an MSR with what FW_AP_MSR says, and goes on at R10 with the answer's exit_info_1 in
// R11 and exit_info_2 in RAX.
request:
  movl %ebx, %edi
  xorl %eax, %eax
  movl $512, %ecx
  rep stosq
  movl FW_AP_VERSION, %eax
  movw %ax, GHCB_VERSION(%rbx)
  movq %r8, GHCB_EXIT_CODE(%rbx)
  movq %r9, GHCB_EXIT_INFO_1(%rbx)
  movb $0x1c, GHCB_VALID + 14(%rbx) // exit code, both infos
  cmpl $EXIT_MSR, %r8d
  jne 1f
  movl FW_AP_MSR, %eax
  movl %eax, GHCB_RCX(%rbx)
  movl FW_AP_MSR + 4, %eax
  movl %eax, GHCB_RAX(%rbx)
  movl FW_AP_MSR + 8, %eax
  movl %eax, GHCB_RDX(%rbx)
  movb $0x80, GHCB_VALID + 7(%rbx)  // RAX
  movb $0x06, GHCB_VALID + 12(%rbx) // RCX, RDX
1:
  VMGEXIT
  movq GHCB_EXIT_INFO_1(%rbx), %r11
  movq GHCB_EXIT_INFO_2(%rbx), %rax
  jmp *%r10

nmi:
  movl $1, %ebp
  iretq

// ---- 16 bits again: back to real mode, and to where the operating system wants it -------------------------------------------

  .code16
leave16:
  movw $SELECTOR_DATA16, %ax
  movw %ax, %ds
  movw %ax, %es
  movw %ax, %fs
  movw %ax, %gs
  movw %ax, %ss
  movl %cr0, %eax
  andl $~CR0_PG, %eax
  movl %eax, %cr0
  movl $MSR_EFER, %ecx
  rdmsr
  andl $~EFER_LME, %eax
  wrmsr
  movl %cr4, %eax
  andl $~CR4_PAE, %eax
  movl %eax, %cr4
  xorl %ebx, %ebx
  movl %ebx, %cr3
  movl %cr0, %eax
  andl $~CR0_PE, %eax
  movl %eax, %cr0
  movw %bx, %ds
  movw %bx, %es
  movw %bx, %fs
  movw %bx, %gs
  movw %bx, %ss
  xorl %eax, %eax
  xorl %ecx, %ecx
  xorl %edx, %edx
  xorl %esp, %esp
  xorl %ebp, %ebp
  xorl %esi, %esi
  xorl %edi, %edi
  ljmpw *FW_AP_JUMP_TABLE

// ---- Tables ----------------------------------------------------------------------------------------------------------------

  // Accessed bits are set: the processor must not want to write to this page.
  .balign 8
hold_gdt:
  .quad 0
  .quad 0
  .quad 0x00af9b000000ffff // 0x10: code, 64 bits
  .quad 0x00cf93000000ffff // 0x18: data
  .quad 0xff009bff0000ffff // 0x20: code, 16 bits, from 0xffff0000 on
  .quad 0x000093000000ffff // 0x28: data, 16 bits
hold_gdt_end:
hold_gdt_pointer:
  .short hold_gdt_end - hold_gdt - 1
  .long hold_gdt

  .balign 8
hold_idt:
  .fill 4, 8, 0
  .short OFFSET16(nmi), FW_SELECTOR_CODE64, GATE_64, FW_HOLD_PAGE >> 16 // 2 NMI
  .quad 0
hold_idt_end:
hold_idt_pointer:
  .short hold_idt_end - hold_idt - 1
  .quad hold_idt
real_idt_pointer:
  .short 0x3ff
  .quad 0
leave16_pointer:
  .long OFFSET16(leave16)
  .short SELECTOR_CODE16

  .org 0x1000

  .section .note.GNU-stack, "", @progbits
