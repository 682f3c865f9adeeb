// The reset page, the last 4 KiB below 4 GiB: reset vector, footer table, the way from 16 over 32 to 64 bits. Runs in place. Until the 64-bit IDT is loaded only CPUID may raise #VC.
//
// APM vol. 2 chapter 14 (processor initialization) and section 15.35; GHCB specification (AMD 56421) sections 2.3.1 and 4.3.
//
// With paging off every access of a SEV guest is private (APM vol. 2 section 15.34.4), so what this page writes to RAM is
// private as well.
#include "firmware/layout.h"

#define MSR_EFER 0xc0000080
#define MSR_GHCB 0xc0010130
#define MSR_SEV_STATUS 0xc0010131
#define CR0_PE 1
#define CR0_PG 0x80000000
#define CR0_CACHE_OFF 0x60000000 /* CD, NW */
#define CR4_PAE 0x20
#define EFER_LME 0x100
#define PTE_TABLE 0x3  /* present, writable */
#define PTE_PAGE 0x3
#define PTE_LARGE 0x83 /* present, writable, page size */
#define GATE_32 0x8e00 /* present, DPL 0, 32-bit interrupt gate */
#define VMGEXIT .byte 0xf3, 0x0f, 0x01, 0xd9

// Low halves of addresses in this page are constants to the assembler.
#define OFFSET16(symbol) ((symbol) - reset_page + (FW_RESET_PAGE & 0xffff))

  .section .reset, "ax"
  .globl reset_page
reset_page:

// ---- 16 bits -------------------------------------------------------------------------------------------------------

  .code16
start16:
  cli
  cld
  lgdtl %cs:OFFSET16(gdt_pointer)
  movl %cr0, %eax
  andl $~CR0_CACHE_OFF, %eax
  orl $CR0_PE, %eax
  movl %eax, %cr0
  ljmpl $FW_SELECTOR_CODE32, $start32

// ---- 32 bits, paging off -------------------------------------------------------------------------------------------

  .code32
start32:
  movl $FW_SELECTOR_DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  xorl %eax, %eax
  movl %eax, %fs
  movl %eax, %gs
  movl $FW_STACK_TOP, %esp

  movl $FW_EARLY_STATE, %edi
  movl $8, %ecx
  rep stosl
  lidtl idt32_pointer

  // CPUID first: under SEV-ES it raises #VC, which tells that the GHCB MSR is there.
  movl $0x80000000, %eax
  cpuid
  movl %eax, %esi
  // The processor's own word, which no hypervisor can intercept. #GP when there is no such MSR: then zero.
  movl $MSR_SEV_STATUS, %ecx
rdmsr_sev_status:
  rdmsr
  movl %eax, FW_EARLY_STATE + FW_STATE_SEV_STATUS
  xorl %ebp, %ebp             // high half of the C-bit mask
  testl $1, %eax
  jz place_stage2
  movl $FW_FAILURE_SNP, %edi
  testl $4, %eax
  jnz terminate32
  movl $FW_FAILURE_C_BIT, %edi
  cmpl $0x8000001f, %esi
  jb terminate32
  movl $0x8000001f, %eax
  cpuid
  testl $2, %eax              // SEV
  jz terminate32
  movl %ebx, %ecx
  andl $0x3f, %ecx
  subl $32, %ecx
  jb terminate32
  cmpl $51 - 32, %ecx         // a page-table entry has address bits up to 51
  ja terminate32
  movl $1, %ebp
  shll %cl, %ebp
  movl %ebp, FW_EARLY_STATE + FW_STATE_C_BIT_MASK + 4

place_stage2:
  movl $stage2_load, %esi
  movl $FW_STAGE2, %edi
  movl $stage2_dwords, %ecx
  rep movsl
  movl $stage2_bss, %edi
  movl $stage2_bss_dwords, %ecx
  xorl %eax, %eax
  rep stosl

  // Identity mapping of 4 GiB in 2 MiB pages, the first 2 MiB in 4 KiB pages. Everything private for now.
  movl $FW_PAGE_TABLES, %edi
  movl $FW_PAGE_TABLES_SIZE / 4, %ecx
  rep stosl
  movl $FW_PAGE_TABLES + 0x1000 + PTE_TABLE, FW_PAGE_TABLES
  movl %ebp, FW_PAGE_TABLES + 4
  movl $FW_PAGE_TABLES + 0x1000, %edi
  movl $FW_PAGE_TABLES + 0x2000 + PTE_TABLE, %eax
  movl $0x1000, %ebx
  movl $4, %ecx
  call fill_entries
  movl $FW_PAGE_TABLES + 0x2000, %edi
  movl $PTE_LARGE, %eax
  movl $0x200000, %ebx
  movl $2048, %ecx
  call fill_entries
  movl $FW_PAGE_TABLES + 0x6000 + PTE_TABLE, FW_PAGE_TABLES + 0x2000
  movl $FW_PAGE_TABLES + 0x6000, %edi
  movl $PTE_PAGE, %eax
  movl $0x1000, %ebx
  movl $512, %ecx
  call fill_entries

  // Random bytes, written while the processor encrypts whatever the page tables say; compared when they count.
  xorl %ebx, %ebx
  xorl %esi, %esi
  testl %ebp, %ebp
  jz enable_long_mode
  movl $FW_FAILURE_RDRAND, %edi
  movl $10, %ecx              // tries, as the processor's manual advises
1:
  rdrand %ebx
  jc 2f
  loop 1b
  jmp terminate32
2:
  rdrand %esi
  jc 3f
  loop 2b
  jmp terminate32
3:
  movl %ebx, FW_EARLY_STATE + FW_STATE_CHECK
  movl %esi, FW_EARLY_STATE + FW_STATE_CHECK + 4

enable_long_mode:
  movl %cr4, %eax
  orl $CR4_PAE, %eax
  movl %eax, %cr4
  movl $FW_PAGE_TABLES, %eax
  movl %eax, %cr3
  movl $MSR_EFER, %ecx
  rdmsr
  orl $EFER_LME, %eax
  wrmsr
  movl %cr0, %eax
  orl $CR0_PG, %eax
  movl %eax, %cr0
  ljmpl $FW_SELECTOR_CODE64, $start64

// ECX entries at EDI: EAX, then EBX more each time; EBP is the high half.
fill_entries:
  movl %eax, (%edi)
  movl %ebp, 4(%edi)
  addl $8, %edi
  addl %ebx, %eax
  loop fill_entries
  ret

// EDI = reason code. Only SEV-ES has a GHCB MSR; elsewhere the processor just stops.
terminate32:
  cmpl $0, FW_EARLY_STATE + FW_STATE_VC_SEEN
  je 1f
  movl %edi, %eax
  shll $16, %eax
  orl $0x1100, %eax           // terminate request, the guest's own reason set
  xorl %edx, %edx
  movl $MSR_GHCB, %ecx
  wrmsr
  VMGEXIT
1:
  hlt
  jmp 1b

// #VC: error code, EIP, CS, EFLAGS on the stack. The hypervisor chooses when this comes, so the instruction must be CPUID.
// Leaf in EAX, sub-leaf 0; each register costs one request (GHCB specification section 2.3.1).
vc32:
  movl $1, FW_EARLY_STATE + FW_STATE_VC_SEEN
  cmpl $0x72, (%esp)          // CPUID
  jne 8f
  addl $4, %esp
  pushl %esi
  movl 4(%esp), %esi
  cmpw $0xa20f, (%esi)        // CPUID
  jne 8f
  pushl %edi
  pushl %ebp
  movl %eax, %edi             // leaf
  movl $4, %esi               // request, register EAX
  subl $16, %esp
  movl %esp, %ebp
1:
  movl %esi, %eax
  movl %edi, %edx
  movl $MSR_GHCB, %ecx
  wrmsr
  VMGEXIT
  rdmsr
  leal 1(%esi), %ecx          // response to the same register, reserved bits clear
  cmpl %ecx, %eax
  jne 9f
  movl %edx, (%ebp)
  addl $4, %ebp
  addl $0x40000000, %esi      // next register; carry after EDX
  jnc 1b
  popl %eax
  popl %ebx
  popl %ecx
  popl %edx
  popl %ebp
  popl %edi
  popl %esi
  addl $2, (%esp)             // past CPUID
  iretl
8:
  movl $FW_FAILURE_EARLY_VC, %edi
  jmp terminate32
9:
  movl $FW_FAILURE_MSR_REPLY, %edi
  jmp terminate32

// #GP: error code, EIP, CS, EFLAGS. Only the read of SEV_STATUS may raise it.
gp32:
  addl $4, %esp
  cmpl $rdmsr_sev_status, (%esp)
  jne 1f
  addl $2, (%esp)
  xorl %eax, %eax
  xorl %edx, %edx
  iretl
1:
  hlt
  jmp 1b

// ---- 64 bits -------------------------------------------------------------------------------------------------------

  .code64
start64:
  movl $FW_SELECTOR_DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  // What was written with paging off must read the same through the C-bit, or the hypervisor lied about the bit. Nothing
  // has been read from memory yet but code and page tables, which are always private.
  cmpl %ebx, FW_EARLY_STATE + FW_STATE_CHECK
  jne 1f
  cmpl %esi, FW_EARLY_STATE + FW_STATE_CHECK + 4
  jne 1f
  movl $FW_STACK_TOP, %esp
  movl $stage2_entry, %eax
  jmp *%rax
1:
  movl $(FW_FAILURE_C_BIT << 16 | 0x1100), %eax
  xorl %edx, %edx
  movl $MSR_GHCB, %ecx
  wrmsr
  VMGEXIT
2:
  hlt
  jmp 2b

// ---- Tables --------------------------------------------------------------------------------------------------------

  // Accessed bits are set: the processor must not want to write to this page.
  .balign 8
gdt:
  .quad 0
  .quad 0x00cf9b000000ffff // 0x08: code, 32 bits
  .quad 0x00af9b000000ffff // 0x10: code, 64 bits
  .quad 0x00cf93000000ffff // 0x18: data
gdt_end:
gdt_pointer:
  .short gdt_end - gdt - 1
  .long gdt

  .balign 8
idt32:
  .fill 13, 8, 0
  .short OFFSET16(gp32), FW_SELECTOR_CODE32, GATE_32, FW_RESET_PAGE >> 16 // 13 #GP
  .fill 15, 8, 0
  .short OFFSET16(vc32), FW_SELECTOR_CODE32, GATE_32, FW_RESET_PAGE >> 16 // 29 #VC
idt32_end:
idt32_pointer:
  .short idt32_end - idt32 - 1
  .long idt32

// The footer table, read backwards from 32 bytes below 4 GiB: each entry is data, u16 length with its own head, GUID
// (edk2 OvmfPkg/ResetVector; QEMU hw/i386/pc_sysfw_ovmf.c).
  .org 0xfe0 - 92
footer:
  .long FW_SECRET_AREA, FW_SECRET_AREA_SIZE
  .short 26
  .long 0x4c2eb361 // launch secret area
  .short 0x7d9b, 0x4cc3
  .byte 0x80, 0x81, 0x12, 0x7c, 0x90, 0xd3, 0xd2, 0x94
  .long FW_HASHES_AREA, FW_HASHES_AREA_SIZE
  .short 26
  .long 0x7255371f // kernel hashes area
  .short 0x3a3b, 0x4b04
  .byte 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54
  .long ap_start16 // ap_hold.S
  .short 22
  .long 0x00f771de // SEV-ES reset block
  .short 0x1a7e, 0x4fcb
  .byte 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e
  .short . + 18 - footer
  .long 0x96b582de // footer
  .short 0x1fb2, 0x45f7
  .byte 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d

  .org 0xff0
  .code16
  jmp start16
  .org 0x1000

  .section .note.GNU-stack, "", @progbits
