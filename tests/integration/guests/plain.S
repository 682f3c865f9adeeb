/*
 * A firmware image that is a whole plain guest: it goes through what a KVM without SEV can prove, says on COM1 how each
 * part went, and powers off. The image is 32 KiB and ends at 4 GiB.
 *
 * Some KVMs emulate all of ring 0, and not all of it: no INT n, SSE or hypercalls here, and no paging in 32-bit mode.
 * Sources: AMD APM volume 2, chapters 5 (paging), 8 (interrupts), 14 (reset, long mode), 16 (APIC); Intel 82093AA
 * (IOAPIC); PC16550D; ACPI 6.4, 4.8.3.2 (PM1 control).
 */
        .set    COM1,           0x3F8
        .set    LAPIC,          0xFEE00000
        .set    IOAPIC,         0xFEC00000
        .set    HOLE,           0xFED80000      /* no device there */
        .set    ROM_WORD,       0xFFFF8000      /* of this image */
        .set    PML4,           0x10000
        .set    PDPT,           0x11000
        .set    IDT,            0x12000
        .set    TRAMPOLINE,     0x8000
        .set    AP_FLAG,        0x9000
        .set    COUNTER,        0x9008
        .set    STACK_TOP,      0x80000
        .set    PM1_CONTROL,    0x604
        .set    S5,             5 << 10 | 1 << 13
        .set    FW_CFG,         0x510

        .text
image:  .long   0x12345678                      /* ROM_WORD */

/* say TEXT: in 64-bit mode. */
        .macro  say text:vararg
        lea     8f(%rip), %rsi
        call    print
        jmp     9f
8:      .asciz  \text
9:
        .endm

        .code16
start16:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     $0x1234, %ax                    /* real mode works: a store and a load through a segment */
        mov     %ax, %ds:0x500
        cmpw    $0x1234, %ds:0x500
        jne     hang16
        lgdtl   %cs:(0x8000 + gdt_pointer - image)      /* CS base is 0xFFFF0000 */
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $0x08, $start32
hang16: hlt
        jmp     hang16

        .code32
start32:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $STACK_TOP, %esp
        /* The first 4 GiB in pages of 2 MiB; their four tables begin at 0x13000. */
        mov     $PML4, %edi
        mov     $0x8000 / 4, %ecx
        xor     %eax, %eax
        cld
        rep stosl
        movl    $PDPT + 3, PML4
        mov     $0, %ebx
1:      mov     %ebx, %eax
        shl     $12, %eax
        add     $0x13000 + 3, %eax
        mov     %eax, PDPT(,%ebx,8)
        inc     %ebx
        cmp     $4, %ebx
        jne     1b
        xor     %ebx, %ebx
2:      mov     %ebx, %eax
        shl     $21, %eax
        or      $0x83, %eax
        mov     %eax, 0x13000(,%ebx,8)
        movl    $0, 0x13004(,%ebx,8)
        inc     %ebx
        cmp     $2048, %ebx
        jne     2b
        mov     %cr4, %eax
        or      $0x20, %eax                     /* PAE */
        mov     %eax, %cr4
        mov     $PML4, %eax
        mov     %eax, %cr3
        mov     $0xC0000080, %ecx               /* EFER */
        rdmsr
        or      $0x100, %eax                    /* LME */
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        ljmp    $0x18, $start64

        .code64
start64:
        mov     $STACK_TOP, %rsp
        say     "ok: reset vector, real mode, protected mode, long mode\r\n"

        /* ROM: a write does nothing. */
        mov     $ROM_WORD, %ebx
        movl    $0xDEADBEEF, (%rbx)
        cmpl    $0x12345678, (%rbx)
        jne     wrong
        say     "ok: firmware cannot be written\r\n"

        /* Ports: fw_cfg's signature by a string instruction; an absent port; the PM timer runs. */
        xor     %eax, %eax
        mov     $FW_CFG, %dx
        out     %ax, %dx
        inc     %dx
        mov     $0x700, %edi
        mov     $4, %ecx
        rep insb
        cmpl    $0x554D4551, 0x700              /* "QEMU" */
        jne     wrong
        mov     $0x2E0, %dx
        in      %dx, %eax
        cmp     $-1, %eax
        jne     wrong
        mov     $0x608, %dx
        in      %dx, %eax
        mov     %eax, %ebx
        mov     $2000, %ecx
3:      in      %dx, %eax
        cmp     %eax, %ebx
        jne     4f
        loop    3b
        jmp     wrong
4:      say     "ok: ports, strings of them, a timer\r\n"

        /* MMIO: the host's controllers, and an address where nothing is, in all sizes. */
        mov     $LAPIC, %ebx
        mov     0x30(%rbx), %eax                /* version */
        cmp     $0x10, %al
        jb      wrong
        mov     $IOAPIC, %ebx
        movl    $1, (%rbx)                      /* version, and number of pins less one */
        mov     0x10(%rbx), %eax
        shr     $16, %eax
        cmp     $23, %al
        jne     wrong
        mov     $HOLE, %ebx
        movq    $0, (%rbx)
        mov     (%rbx), %rax
        cmp     $-1, %rax
        jne     wrong
        movzwl  (%rbx), %eax
        cmp     $0xFFFF, %eax
        jne     wrong
        cmpb    $0xFF, 1(%rbx)
        jne     wrong
        say     "ok: MMIO\r\n"

        /* An exception through the IDT: #UD, whose handler goes behind the instruction. */
        mov     $6, %edi
        lea     on_ud(%rip), %rsi
        call    set_gate
        mov     $0x40, %edi
        lea     on_timer(%rip), %rsi
        call    set_gate
        mov     $0x41, %edi
        lea     on_uart(%rip), %rsi
        call    set_gate
        lidt    idt_pointer(%rip)
        movl    $0, COUNTER
        ud2
        cmpl    $1, COUNTER
        jne     wrong
        say     "ok: an exception\r\n"

        /* The LAPIC's timer wakes a halted processor. */
        mov     $LAPIC, %ebx
        movl    $0x1FF, 0xF0(%rbx)              /* enable, spurious vector 0xFF */
        movl    $0xB, 0x3E0(%rbx)               /* divide by 1 */
        movl    $0x40, 0x320(%rbx)              /* one shot, vector 0x40 */
        movl    $100000, 0x380(%rbx)
5:      sti
        hlt
        cli
        cmpl    $2, COUNTER
        jne     5b
        say     "ok: the LAPIC's timer\r\n"

        /* An interrupt of a device of the VMM: COM1's, through the IOAPIC's pin 4; the PICs have it, too. */
        mov     $0xFF, %al
        out     %al, $0x21
        out     %al, $0xA1
        mov     $IOAPIC, %ebx
        movl    $0x10 + 2 * 4 + 1, (%rbx)
        movl    $0, 0x10(%rbx)                  /* to APIC 0 */
        movl    $0x10 + 2 * 4, (%rbx)
        movl    $0x41, 0x10(%rbx)               /* edge, vector 0x41 */
        mov     $COM1 + 4, %dx
        mov     $0x08, %al                      /* OUT2: the interrupt line is connected */
        out     %al, %dx
        mov     $COM1 + 1, %dx
        mov     $0x02, %al                      /* when the transmitter is empty, which it is */
        out     %al, %dx
6:      sti
        hlt
        cli
        cmpl    $3, COUNTER
        jne     6b
        say     "ok: a device's interrupt\r\n"

        /* A second processor: INIT, SIPI, and it writes its word. */
        lea     trampoline(%rip), %rsi
        mov     $TRAMPOLINE, %edi
        mov     $trampoline_end - trampoline, %ecx
        rep movsb
        movl    $0, AP_FLAG
        mov     $LAPIC, %ebx
        movl    $1 << 24, 0x310(%rbx)
        movl    $0x4500, 0x300(%rbx)            /* INIT */
        movl    $1 << 24, 0x310(%rbx)
        movl    $0x4600 + (TRAMPOLINE >> 12), 0x300(%rbx)
        mov     $50000000, %ecx
7:      cmpl    $0xA9A9A9A9, AP_FLAG
        je      ap_came
        pause
        loop    7b
        jmp     wrong
ap_came:
        say     "ok: a second processor\r\n"

        say     "plain guest: PASS\r\n"
        mov     $PM1_CONTROL, %dx
        mov     $S5, %eax
        out     %ax, %dx
halt:   cli
        hlt
        jmp     halt

wrong:  say     "plain guest: the next part went wrong\r\n"
        mov     $0xCF9, %dx                     /* a reset, so that the exit code is not 0 */
        mov     $6, %al
        out     %al, %dx
        jmp     halt

/* RSI: text to COM1. */
print:  mov     $COM1 + 5, %dx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        lodsb
        test    %al, %al
        jz      2f
        mov     $COM1, %dx
        out     %al, %dx
        jmp     print
2:      ret

/* EDI: vector, RSI: handler, below 4 GiB. */
set_gate:
        shl     $4, %edi
        add     $IDT, %edi
        mov     %esi, %eax
        movw    %ax, (%rdi)
        movw    $0x18, 2(%rdi)
        movw    $0x8E00, 4(%rdi)
        shr     $16, %eax
        movw    %ax, 6(%rdi)
        movq    $0, 8(%rdi)
        ret

on_ud:  incl    COUNTER
        addq    $2, (%rsp)
        iretq
on_timer:
        incl    COUNTER
        push    %rbx
        mov     $LAPIC, %ebx
        movl    $0, 0xB0(%rbx)                  /* end of interrupt */
        pop     %rbx
        iretq
on_uart:
        incl    COUNTER
        push    %rax
        push    %rdx
        push    %rbx
        mov     $COM1 + 2, %dx                  /* reading the identification takes it back */
        in      %dx, %al
        mov     $COM1 + 1, %dx
        xor     %eax, %eax
        out     %al, %dx
        mov     $LAPIC, %ebx
        movl    $0, 0xB0(%rbx)
        pop     %rbx
        pop     %rdx
        pop     %rax
        iretq

        .code16
trampoline:
        mov     $AP_FLAG >> 4, %ax
        mov     %ax, %ds
        movl    $0xA9A9A9A9, %ds:0
1:      cli
        hlt
        jmp     1b
trampoline_end:

        .balign 8
gdt:    .quad   0
        .quad   0x00CF9B000000FFFF              /* 0x08: 32-bit code */
        .quad   0x00CF93000000FFFF              /* 0x10: data */
        .quad   0x00AF9B000000FFFF              /* 0x18: 64-bit code */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
idt_pointer:
        .word   0x1000 - 1
        .quad   IDT

        .org    0x7FF0
        .code16
        jmp     start16
        .org    0x8000
