/*
 * Pieces of guest code. Each runs at 0x1000 with flat segments: those of 16 bits in real mode, those of 64 in long mode
 * with the first GiB and the one from HOLE on mapped as they are. A report is a write of EAX to port 0x10.
 *
 * Some KVMs emulate all of ring 0, and not all of it: no INT n, SSE or hypercalls here.
 */
        .set    HOLE,           0xD0000000      /* no memory there */
        .set    REPORT,         0x10
        .set    LAPIC,          0xFEE00000
        .set    VALUE,          0x2000          /* where tests leave values for the guest */

        .section .rodata
        .macro  guest name bits
        .globl  guest_\name, guest_\name\()_end
        .balign 16
        .code\bits
guest_\name:
        .set    start, guest_\name
        .endm
        .macro  guest_end name
guest_\name\()_end:
        .endm
        .macro  report
        out     %eax, $REPORT
        .endm
        /* where a label of this piece will be */
#define AT(label) ((label) - start + 0x1000)

        guest   hlt 16
        hlt
        mov     $0x77, %eax
        report
        guest_end hlt

        guest   spin 16
1:      jmp     1b
        guest_end spin

        guest   ports 16
        mov     $0x11223344, %eax
        out     %al, $0x21
        out     %ax, $0x22
        out     %eax, $0x24
        mov     $0x3F8, %dx
        out     %al, %dx
        mov     $-1, %eax
        in      $0x31, %al
        report
        mov     $-1, %eax
        in      $0x32, %ax
        report
        mov     $-1, %eax
        in      $0x34, %eax
        report
        guest_end ports

        guest   strings 16
        cld
        mov     $0x40, %dx
        mov     $VALUE, %si
        mov     $3, %cx
        rep outsb
        mov     %cx, %ax
        report
        mov     $VALUE + 0x10, %di
        mov     $3, %cx
        rep insb
        mov     VALUE + 0x10, %eax
        report
        guest_end strings

        guest   shutdown 64
        lidt    1f(%rip)
        ud2
1:      .word   0
        .quad   0
        guest_end shutdown

        /* A handler in the interrupt vector table reports the vector and goes on behind a two-byte instruction. */
        guest   ud2 16
        movw    $AT(2f), 6 * 4
        movw    $0, 6 * 4 + 2
        ud2
        mov     $2, %eax
        report
2:      mov     $6, %eax
        report
        mov     %sp, %bx
        addw    $2, (%bx)
        iretw
        guest_end ud2

        guest   cpuid 16
1:      mov     VALUE, %eax
        mov     VALUE + 4, %ecx
        cpuid
        mov     %eax, VALUE + 0x10
        mov     %ebx, VALUE + 0x14
        mov     %ecx, VALUE + 0x18
        mov     %edx, VALUE + 0x1C
        report
        jmp     1b
        guest_end cpuid

        /* RDMSR and WRMSR of VALUE with VALUE + 8. Reports EAX of the read, or 0xD6D6 after #GP. */
        guest   msr 16
        movw    $AT(3f), 13 * 4
        movw    $0, 13 * 4 + 2
1:      mov     VALUE, %ecx
        mov     VALUE + 8, %eax
        mov     VALUE + 12, %edx
        cmpl    $0, VALUE + 16
        je      2f
        wrmsr
        mov     $0x600D, %eax
        jmp     4f
2:      rdmsr
        mov     %eax, VALUE + 24
        mov     %edx, VALUE + 28
4:      report
        jmp     1b
3:      mov     $0xD6D6, %eax
        mov     $0x8000, %sp
        jmp     4b
        guest_end msr

        guest   mmio 64
        mov     $HOLE, %ebx
        mov     $0x8877665544332211, %rax
        mov     %al, (%rbx)
        mov     %ax, 2(%rbx)
        mov     %eax, 4(%rbx)
        mov     %rax, 8(%rbx)
        movzbl  0x10(%rbx), %eax
        report
        movswl  0x12(%rbx), %eax
        report
        mov     0x14(%rbx), %eax
        report
        mov     0x18(%rbx), %rax
        mov     %rax, %rcx
        report
        shr     $32, %rcx
        mov     %ecx, %eax
        report
        addl    $5, 0x20(%rbx)
        mov     %rax, 0xFFC(%rbx)
        guest_end mmio

        guest   store_and_load 64
        mov     VALUE, %rbx                     /* where */
        movl    $0x1234, (%rbx)
        mov     (%rbx), %eax
        report
        guest_end store_and_load

        guest   jump 64
        mov     VALUE, %rbx
        jmp     *%rbx
        guest_end jump

        /* The handler of vector 0x40 reports it. Interrupts are taken at STI and at each HLT. */
        guest   interrupts 16
        movw    $AT(2f), 0x40 * 4
        movw    $0, 0x40 * 4 + 2
        movw    $AT(3f), 2 * 4
        movw    $0, 2 * 4 + 2
        mov     $1, %eax
        report
        sti
        mov     $5000, %cx                      /* some KVMs look up only after many instructions */
1:      loop    1b
1:      hlt
        mov     $0x5A, %eax
        report
        jmp     1b
2:      mov     $0x40, %eax
        report
        iretw
3:      mov     $2, %eax
        report
        iretw
        guest_end interrupts

        guest   steps 16
        nop
        mov     $5, %ax
        out     %al, $0x21
        nop
        hlt
        guest_end steps

        /* In long mode with an IDT at 0x3000: the local APIC's interrupts. What to do is at VALUE. */
        guest   lapic 64
        mov     $0x3000 + 0x40 * 16, %edi
        lea     2f(%rip), %rax
        mov     %ax, (%rdi)
        movw    $8, 2(%rdi)
        movw    $0x8E00, 4(%rdi)
        shr     $16, %eax
        mov     %ax, 6(%rdi)
        movq    $0, 8(%rdi)
        lidt    3f(%rip)
        mov     $LAPIC, %ebx
        movl    $0x1FF, 0xF0(%rbx)              /* software enable */
        mov     VALUE, %eax
        cmp     $1, %eax
        je      5f
        cmp     $2, %eax
        je      6f
        cmp     $3, %eax
        je      7f
4:      sti
        hlt
        jmp     4b
5:      movl    $0xB, 0x3E0(%rbx)               /* divide by 1 */
        movl    $0x00040, 0x320(%rbx)           /* one shot, vector 0x40 */
        movl    $10000, 0x380(%rbx)
        jmp     4b
6:      movl    $0x40040, 0x320(%rbx)           /* TSC deadline */
        rdtsc
        add     $100000, %eax
        adc     $0, %edx
        mov     $0x6E0, %ecx
        wrmsr
        jmp     4b
7:      movl    $0x44040, 0x300(%rbx)           /* to itself */
        jmp     4b
2:      mov     $0x40, %eax
        movl    $0, 0xB0(%rbx)                  /* end of interrupt */
        report
        iretq
3:      .word   0x7FF
        .quad   0x3000
        guest_end lapic

        /* INIT and SIPI to APIC 1 with vector 5; the other end is guest_started, at 0x5000. */
        guest   start_other 64
        mov     $LAPIC, %ebx
        movl    $0x1FF, 0xF0(%rbx)
        movl    $1 << 24, 0x310(%rbx)
        movl    $0x4500, 0x300(%rbx)
        movl    $1 << 24, 0x310(%rbx)
        movl    $0x4605, 0x300(%rbx)
1:      mov     VALUE, %eax
        cmp     $0, %eax
        je      1b
        report
        guest_end start_other

        guest   started 16
        mov     %cs, %ax
        mov     %ax, %bx
        xor     %ax, %ax
        mov     %ax, %ds
        movzwl  %bx, %ebx
        mov     %ebx, VALUE
1:      cli
        hlt
        jmp     1b
        guest_end started

        /* Reports what SEV_STATUS says: bit 0 SEV, bit 1 SEV-ES. */
        guest   sev_status 64
        mov     $0xC0010131, %ecx
        rdmsr
        report
        guest_end sev_status

        /* The same where a report would be #VC: it asks for termination if both bits are there. */
        guest   sev_es_status 64
        mov     $0xC0010131, %ecx
        rdmsr
        and     $3, %eax
        cmp     $3, %eax
        jne     1f
        mov     $0xC0010130, %ecx
        mov     $0x100, %eax
        xor     %edx, %edx
        wrmsr
        rep; vmmcall                            /* VMGEXIT */
1:      ud2
        guest_end sev_es_status

        guest   sev_shutdown 64
        ud2
        guest_end sev_shutdown

        /* XSAVE to what is shared, then the same. */
        guest   sev_xsave 64
        mov     $7, %eax
        xor     %edx, %edx
        mov     $0x200000, %ebx
        xsave64 (%rbx)
        mov     $0xC0010130, %ecx
        mov     $0x100, %eax
        xor     %edx, %edx
        wrmsr
        rep; vmmcall                            /* VMGEXIT */
        ud2
        guest_end sev_xsave

        .section .note.GNU-stack, "", @progbits
