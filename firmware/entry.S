// Entry of the 64-bit stage and of its exceptions (APM vol. 2 chapter 8), and other code that C++ has no words for.
#include "firmware/layout.h"

#define MSR_EFER 0xc0000080
#define CR0_PE 1
#define CR0_CACHE_OFF 0x60000000 /* CD, NW */

  .section .text.entry, "ax"
  .code64
  .globl stage2_entry
stage2_entry:
  call firmware_main
1:
  hlt
  jmp 1b

// One stub a vector, 16 bytes apart: error code (0 where the processor pushes none), vector, then the common part.
  .balign 16
  .globl exception_stubs
exception_stubs:
  .set vector, 0
  .rept 32
  .balign 16
  .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
  .else
  pushq $0
  .endif
  pushq $vector
  jmp exception_common
  .set vector, vector + 1
  .endr

// struct ExceptionFrame of firmware/exceptions.hpp, from the end.
  .balign 16
exception_common:
  pushq %r15
  pushq %r14
  pushq %r13
  pushq %r12
  pushq %r11
  pushq %r10
  pushq %r9
  pushq %r8
  pushq %rdi
  pushq %rsi
  pushq %rbp
  pushq %rbx
  pushq %rdx
  pushq %rcx
  pushq %rax
  cld
  movq %rsp, %rdi
  movq %rsp, %rbp
  andq $~0xf, %rsp
  call handle_exception
  movq %rbp, %rsp
  popq %rax
  popq %rcx
  popq %rdx
  popq %rbx
  popq %rbp
  popq %rsi
  popq %rdi
  popq %r8
  popq %r9
  popq %r10
  popq %r11
  popq %r12
  popq %r13
  popq %r14
  popq %r15
  addq $16, %rsp
  iretq

// bool read_msr_or_fault(u32 msr, u64* value), bool write_msr_or_fault(u32 msr, u64 value): false when the instruction
// raised an exception; exceptions.cpp then goes on at msr_faulted.
  .globl read_msr_or_fault, write_msr_or_fault, rdmsr_may_fault, wrmsr_may_fault, msr_faulted
read_msr_or_fault:
  movl %edi, %ecx
rdmsr_may_fault:
  rdmsr
  shlq $32, %rdx
  orq %rdx, %rax
  movq %rax, (%rsi)
  movl $1, %eax
  ret
write_msr_or_fault:
  movl %edi, %ecx
  movl %esi, %eax
  movq %rsi, %rdx
  shrq $32, %rdx
wrmsr_may_fault:
  wrmsr
  movl $1, %eax
  ret
msr_faulted:
  xorl %eax, %eax
  ret

// [[noreturn]] void enter_kernel(u64 entry, u64 boot_params): Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst).
  .globl enter_kernel
enter_kernel:
  cli
  cld
  movq %rdi, %rax
  xorl %ebx, %ebx
  xorl %ebp, %ebp
  xorl %edi, %edi
  jmp *%rax

// [[noreturn]] void enter_pvh(u64 entry, u64 start_info): 32-bit mode, paging off, EBX = hvm_start_info, and the rest as Xen's
// docs/misc/pvh.pandoc asks, section "Direct Boot".
  .code64
  .globl enter_pvh
enter_pvh:
  cli
  cld
  movl %edi, %ebp
  movl %esi, %ebx
  lgdt pvh_gdt_pointer
  pushq $FW_SELECTOR_CODE32
  pushq $1f
  lretq
  .code32
1:
  movl $CR0_PE, %eax
  movl %eax, %cr0
  movl $MSR_EFER, %ecx
  xorl %eax, %eax
  xorl %edx, %edx
  wrmsr
  movl %eax, %cr4
  movl $FW_SELECTOR_DATA, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl $FW_SELECTOR_TASK, %eax
  ltr %ax
  jmp *%ebp

  .data
  .balign 8
pvh_gdt:
  .quad 0
  .quad 0x00cf9b000000ffff // 0x08: code, 32 bits
  .quad 0x00af9b000000ffff // 0x10: code, 64 bits
  .quad 0x00cf93000000ffff // 0x18: data
  .quad 0x0000890000000067 // 0x20: 32-bit task state, base 0
pvh_gdt_end:
pvh_gdt_pointer:
  .short pvh_gdt_end - pvh_gdt - 1
  .quad pvh_gdt
  .section .text.entry, "ax"

// Where application processors without encrypted state start, copied to FW_AP_JUMP_TABLE, which is theirs then: a SIPI names
// a page. Each writes the MSR that the first one wrote, counts itself and halts until the operating system sends INIT.
  .code16
  .globl ap_plain, ap_plain_end
ap_plain:
  jmp 1f
  .org ap_plain + FW_AP_PLAIN_CODE
1:
  cli
  xorw %ax, %ax
  movw %ax, %ds
  movl %cr0, %eax
  andl $~CR0_CACHE_OFF, %eax
  movl %eax, %cr0
  movl FW_AP_MSR, %ecx
  movl FW_AP_MSR + 4, %eax
  movl FW_AP_MSR + 8, %edx
  wrmsr
  lock incl FW_AP_COUNT
2:
  hlt
  jmp 2b
ap_plain_end:

  .section .note.GNU-stack, "", @progbits
