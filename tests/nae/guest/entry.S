/* Entry in 64-bit mode with paging on (the VMSA has it all), exception stubs, and the way to CPL 3 and back. */
#include "tests/nae/layout.h"

        .section .text.entry, "ax"
        .globl  _start
_start: call    guest_main              /* RDI: the program, RSI: which vCPU */
1:      hlt
        jmp     1b

        .text
        .balign 16
        .globl  exception_stubs
exception_stubs:
        .set    vector, 0
        .rept   64
        .balign 16
        .if     (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29)
        .else
        pushq   $0
        .endif
        pushq   $vector
        jmp     exception
        .set    vector, vector + 1
        .endr

exception:
        cld
        .irp    r, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
        pushq   %\r
        .endr
        movq    %rsp, %rdi
        call    on_exception
        .irp    r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
        popq    %\r
        .endr
        addq    $16, %rsp
        iretq

/* run_user(RDI: function, RSI: RFLAGS): runs it at CPL 3 until it executes INT NAE_USER_DONE. */
        .globl  run_user
run_user:
        .irp    r, rbx, rbp, r12, r13, r14, r15
        pushq   %\r
        .endr
        pushfq
        movq    %rsp, kernel_stack(%rip)
        pushq   $NAE_USER_DATA
        pushq   $NAE_USER_STACK_TOP
        pushq   %rsi
        pushq   $NAE_USER_CODE
        pushq   %rdi
        iretq

        .globl  user_done
user_done:
        movq    kernel_stack(%rip), %rsp
        popfq
        .irp    r, r15, r14, r13, r12, rbp, rbx
        popq    %\r
        .endr
        ret

        .bss
        .balign 8
kernel_stack:
        .quad   0
