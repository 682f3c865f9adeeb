// A guest that goes the way of a boot loader: real mode, protected mode, long mode, user code and back. Each stage
// reports by VMGEXIT with its number in EAX. It is copied to 0x10000.
	.set base, 0x10000

	.macro report n
	movl $\n, %eax
	rep
	.byte 0x0f, 0x01, 0xd9
	.endm

	.section .rodata
	.globl boot_guest_begin, boot_guest_end, boot_guest_handler
boot_guest_begin:
	.code16
	cli
	report 1
	// DS reaches the tables here.
	movw $(base >> 4), %ax
	movw %ax, %ds
	lgdtl gdt_pointer - boot_guest_begin
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x08, $(protected - boot_guest_begin + base)

	.code32
protected:
	movw $0x10, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $0x20000, %esp
	report 2
	// Page tables at 0x8000: one PML4E, one PDPE, one 2 MiB page with the C-bit (bit 51).
	movl $0x9007, 0x8000
	movl $0, 0x8004
	movl $0xa007, 0x9000
	movl $0, 0x9004
	movl $0x00000087, 0xa000
	movl $0x00080000, 0xa004
	movl %cr4, %eax
	orl $0x20, %eax
	movl %eax, %cr4
	movl $0x8000, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80010000, %eax
	movl %eax, %cr0
	report 3
	ljmpl $0x18, $(long - boot_guest_begin + base)

	.code64
long:
	xorl %eax, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	report 4
	// STAR: SYSCALL to 0x18, SYSRET to 0x20 (+16 code, +8 data). LSTAR: the system call handler.
	movl $0xc0000081, %ecx
	xorl %eax, %eax
	movl $0x00200018, %edx
	wrmsr
	incl %ecx
	leaq syscall_entry(%rip), %rax
	movq %rax, %rdx
	shrq $32, %rdx
	wrmsr
	lidt idt_pointer(%rip)
	movl $0x40, %eax
	ltr %ax
	// To user code by IRET.
	pushq $0x2b
	pushq $0x28000
	pushq $0x202
	pushq $0x33
	leaq user(%rip), %rax
	pushq %rax
	iretq

user:
	report 5
	syscall
	report 7
	hlt

syscall_entry:
	report 6
	sysretq

boot_guest_handler:	// of #GP, whose HLT was not allowed
	popq %rbx
	report 8
	// Back to 32-bit code, then out of long mode, then to real mode.
	pushq $0x08
	leaq compatibility(%rip), %rax
	pushq %rax
	lretq

	.code32
compatibility:
	movw $0x10, %ax
	movw %ax, %ss
	movw %ax, %ds
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0
	movl $0xc0000080, %ecx
	rdmsr
	andl $~0x100, %eax
	wrmsr
	report 9
	ljmpl $0x38, $(real_again - boot_guest_begin)

	.code16
real_again:
	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmpw $(base >> 4), $(real_end - boot_guest_begin)
real_end:
	report 10
	hlt

	.balign 16
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff	// 08 32-bit code
	.quad 0x00cf93000000ffff	// 10 data
	.quad 0x00af9b000000ffff	// 18 64-bit code; 20 is the data segment after it
	.quad 0x00cf93000000ffff	// 20
	.quad 0x00cff3000000ffff	// 28 user data
	.quad 0x00affb000000ffff	// 30 user 64-bit code
	.quad 0x00009b010000ffff	// 38 16-bit code at 0x10000
	.quad 0x0000890030000067	// 40 TSS at 0x3000
	.quad 0
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt - boot_guest_begin + base
idt_pointer:
	.word 0xfff
	.quad 0x2000
boot_guest_end:
	.section .note.GNU-stack, "", @progbits
