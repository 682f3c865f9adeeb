/*
 * A firmware image of 64 KiB, as QEMU wants them, that writes one line to COM1 with its first instructions and halts: for
 * the time from exec to a guest's first instruction (./dev bench --startup).
 */
        .set    COM1,   0x3F8

        .text
        .code16
        .org    0xFF00
start:  mov     $COM1, %dx
        mov     $'S', %al
        out     %al, %dx
        mov     $'\n', %al
        out     %al, %dx
halt:   cli
        hlt
        jmp     halt

        .org    0xFFF0
        jmp     start
        .org    0x10000
