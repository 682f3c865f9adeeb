/*
 * A firmware image that is a whole SEV-ES guest: it makes a secret in private memory, later copies it to a shared page, and
 * says on COM1 which of the two it has done. Each byte typed on COM1 lets it go on. It ends by asking for termination.
 *
 * The image is 32 KiB and ends at 4 GiB. Its page tables are part of it. C-bit: 51, as on the emulated host.
 * Sources: AMD APM volume 2, 5.3 (page tables), 15.35 (SEV-ES); GHCB specification 56421, 2.3 (MSR protocol), 2.6 (page).
 */
        .set    IMAGE,          0xFFFF8000
        .set    C_BIT,          1 << 51
        .set    PRIVATE_PAGE,   0x100000
        .set    GHCB,           0x200000        /* the second 2 MiB are mapped with C=0 */
        .set    SHARED_PAGE,    0x201000
        .set    STACK_TOP,      0x120000

        .set    PRESENT_WRITABLE, 3
        .set    LARGE,          1 << 7

        .set    MSR_EFER,       0xC0000080
        .set    MSR_GHCB,       0xC0010130

        .set    GHCB_RAX,       0x1F8
        .set    GHCB_EXIT_CODE, 0x390
        .set    GHCB_INFO_1,    0x398
        .set    GHCB_INFO_2,    0x3A0
        .set    GHCB_VALID,     0x3F0           /* one bit a quadword of the save area */
        .set    GHCB_VERSION,   0xFFA
        .set    EXIT_IOIO,      0x7B
        .set    IOIO_IN,        1 << 0
        .set    IOIO_8_BIT,     1 << 4
        .set    IOIO_ADDRESS_64, 1 << 9

        .set    COM1,           0x3F8
        .set    COM1_LSR,       0x3FD

        .macro  VMGEXIT                         /* REP VMMCALL; older assemblers know no name for it */
        .byte   0xF3, 0x0F, 0x01, 0xD9
        .endm

        .text
image:
pml4:   .quad   IMAGE + (pdpt - image) + PRESENT_WRITABLE + C_BIT
        .balign 4096
pdpt:   .quad   IMAGE + (low_pages - image) + PRESENT_WRITABLE + C_BIT
        .quad   0, 0
        .quad   IMAGE + (high_pages - image) + PRESENT_WRITABLE + C_BIT
        .balign 4096
low_pages:
        .quad   0x000000 + PRESENT_WRITABLE + LARGE + C_BIT
        .quad   0x200000 + PRESENT_WRITABLE + LARGE
        .balign 4096
high_pages:                                     /* the last 2 MiB below 4 GiB hold this image */
        .fill   511, 8, 0
        .quad   0xFFE00000 + PRESENT_WRITABLE + LARGE + C_BIT

gdt:    .quad   0
        .quad   0x00CF9B000000FFFF              /* 0x08: 32-bit code */
        .quad   0x00CF93000000FFFF              /* 0x10: data */
        .quad   0x00AF9B000000FFFF              /* 0x18: 64-bit code */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   IMAGE + (gdt - image)

        .code16
enter_16:                                       /* CS base is 0xFFFF0000 */
        cli
        lgdtl   %cs:(0x8000 + gdt_pointer - image)
        movl    $0x11, %eax                     /* PE, ET */
        movl    %eax, %cr0
        ljmpl   $0x08, $(IMAGE + (enter_32 - image))

        .code32
enter_32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x20, %eax                     /* PAE */
        movl    %eax, %cr4
        movl    $(IMAGE + (pml4 - image)), %eax
        movl    %eax, %cr3                      /* the walk is private whatever CR3's C-bit says */
        movl    $MSR_EFER, %ecx
        xorl    %edx, %edx
        movl    $0x100, %eax                    /* LME */
        wrmsr
        movl    $0x80000011, %eax               /* PG, ET, PE */
        movl    %eax, %cr0
        ljmpl   $0x18, $(IMAGE + (enter_64 - image))

        .code64
enter_64:
        movl    $STACK_TOP, %esp

        movl    $GHCB, %edi                     /* all of the GHCB is written before its first use */
        movl    $4096 / 8, %ecx
        xorl    %eax, %eax
        rep stosq
        movw    $1, GHCB + GHCB_VERSION
        movl    $MSR_GHCB, %ecx
        movl    $GHCB, %eax
        xorl    %edx, %edx
        wrmsr

        movl    $PRIVATE_PAGE, %edi             /* the secret stands in the image only in disguise */
        movl    $(IMAGE + (disguised - image)), %esi
        movl    $(disguised_end - disguised), %ecx
1:      lodsb
        xorb    $0x5A, %al
        stosb
        decl    %ecx
        jnz     1b
        movl    $(IMAGE + (says_private - image)), %esi
        call    print
        call    wait_for_a_byte

        movl    $PRIVATE_PAGE, %esi
        movl    $SHARED_PAGE, %edi
        movl    $(disguised_end - disguised), %ecx
        rep movsb
        movl    $(IMAGE + (says_shared - image)), %esi
        call    print
        call    wait_for_a_byte

        movl    $MSR_GHCB, %ecx                 /* terminate: reason set 0, reason 0 "general" */
        movl    $0x100, %eax
        xorl    %edx, %edx
        wrmsr
        VMGEXIT
2:      hlt
        jmp     2b

/* Prints the text at RSI, which ends with a zero. */
print:  lodsb
        testb   %al, %al
        jz      1f
        movl    $((COM1 << 16) | IOIO_ADDRESS_64 | IOIO_8_BIT), %edx
        call    port
        jmp     print
1:      ret

/* Waits for a byte on COM1 and takes it. */
wait_for_a_byte:
        movl    $((COM1_LSR << 16) | IOIO_ADDRESS_64 | IOIO_8_BIT | IOIO_IN), %edx
        call    port
        testb   $1, %al                         /* data ready */
        jz      wait_for_a_byte
        movl    $((COM1 << 16) | IOIO_ADDRESS_64 | IOIO_8_BIT | IOIO_IN), %edx
        jmp     port

/* The NAE event IOIO_PROT: exit information 1 in EDX, AL out or in. */
port:   movzbl  %al, %eax
        movq    %rax, GHCB + GHCB_RAX
        movq    $EXIT_IOIO, GHCB + GHCB_EXIT_CODE
        movq    %rdx, GHCB + GHCB_INFO_1
        movq    $0, GHCB + GHCB_INFO_2
        movabsq $(1 << (GHCB_RAX / 8)), %rax
        movq    %rax, GHCB + GHCB_VALID
        movabsq $((1 << (GHCB_EXIT_CODE / 8 - 64)) | (1 << (GHCB_INFO_1 / 8 - 64)) | (1 << (GHCB_INFO_2 / 8 - 64))), %rax
        movq    %rax, GHCB + GHCB_VALID + 8
        VMGEXIT
        movq    GHCB + GHCB_RAX, %rax
        ret

says_private:   .asciz "the secret is private\r\n"
says_shared:    .asciz "the secret is shared\r\n"

        /* "sevisor-test-secret:4f1d9c27ab" with each byte XOR 0x5A */
disguised:
        .byte   0x29, 0x3F, 0x2C, 0x33, 0x29, 0x35, 0x28, 0x77, 0x2E, 0x3F, 0x29, 0x2E, 0x77, 0x29, 0x3F
        .byte   0x39, 0x28, 0x3F, 0x2E, 0x60, 0x6E, 0x3C, 0x6B, 0x3E, 0x63, 0x39, 0x68, 0x6D, 0x3B, 0x38
disguised_end:

/* The footer table, read from its end: https://github.com/tianocore/edk2 OvmfPkg/ResetVector documents the GUIDs. */
        .org    0x7FE0 - 40
table:  .long   IMAGE + (enter_16 - image)      /* where application processors start; there are none here */
        .word   0x16
        .byte   0xDE, 0x71, 0xF7, 0x00, 0x7E, 0x1A, 0xCB, 0x4F, 0x89, 0x0E, 0x68, 0xC7, 0x7E, 0x2F, 0xB4, 0x4E
        .word   table_end - table
        .byte   0xDE, 0x82, 0xB5, 0x96, 0xB2, 0x1F, 0xF7, 0x45, 0xBA, 0xEA, 0xA3, 0x66, 0xC5, 0x5A, 0x08, 0x2D
table_end:

        .org    0x7FF0
        .code16
        jmp     enter_16
        .org    0x8000
