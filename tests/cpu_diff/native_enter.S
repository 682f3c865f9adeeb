// Loads every register from cpu_diff_frame, runs the code at kCode and stores them again.
// Offsets: struct Frame in native.cpp.
#define FRAME(offset) cpu_diff_frame + offset(%rip)
#define RFLAGS 128
#define FX 144
#define YMM_HIGH 656
#define HOST_RSP 912
#define ENTRY 920
#define FAR_ENTRY 928

  .text
  .macro load_general
  mov FRAME(0), %rax
  mov FRAME(8), %rcx
  mov FRAME(16), %rdx
  mov FRAME(24), %rbx
  mov FRAME(40), %rbp
  mov FRAME(48), %rsi
  mov FRAME(56), %rdi
  mov FRAME(64), %r8
  mov FRAME(72), %r9
  mov FRAME(80), %r10
  mov FRAME(88), %r11
  mov FRAME(96), %r12
  mov FRAME(104), %r13
  mov FRAME(112), %r14
  mov FRAME(120), %r15
  mov FRAME(32), %rsp
  .endm

  .macro upper_halves do
  cmpb $0, cpu_diff_ymm(%rip)
  je 9f
  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  \do \n
  .endr
9:
  .endm
  .macro load_upper_half n
  vinsertf128 $1, FRAME(YMM_HIGH + 16 * \n), %ymm\n, %ymm\n
  .endm
  .macro store_upper_half n
  vextractf128 $1, %ymm\n, FRAME(YMM_HIGH + 16 * \n)
  .endm

  .macro enter_host
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, FRAME(HOST_RSP)
  fxrstor64 FRAME(FX)
  upper_halves load_upper_half
  pushq FRAME(RFLAGS)
  popfq
  load_general
  .endm

  .globl cpu_diff_enter
  .type cpu_diff_enter, @function
cpu_diff_enter:
  enter_host
  jmp *FRAME(ENTRY)

  // Into 32-bit code.
  .globl cpu_diff_enter_far
  .type cpu_diff_enter_far, @function
cpu_diff_enter_far:
  mov $0x2b, %eax               // __USER_DS: 64-bit programs have null segments
  mov %eax, %ds
  mov %eax, %es
  enter_host
  ljmp *FRAME(FAR_ENTRY)

  // The instruction has completed; the stubs in the code page come here.
  .globl cpu_diff_done
cpu_diff_done:
  mov %rsp, FRAME(32)
  mov FRAME(HOST_RSP), %rsp
  pushfq
  popq FRAME(RFLAGS)
  mov %rax, FRAME(0)
  mov %rcx, FRAME(8)
  mov %rdx, FRAME(16)
  mov %rbx, FRAME(24)
  mov %rbp, FRAME(40)
  mov %rsi, FRAME(48)
  mov %rdi, FRAME(56)
  mov %r8, FRAME(64)
  mov %r9, FRAME(72)
  mov %r10, FRAME(80)
  mov %r11, FRAME(88)
  mov %r12, FRAME(96)
  mov %r13, FRAME(104)
  mov %r14, FRAME(112)
  mov %r15, FRAME(120)

  // It has faulted: the signal handler has stored everything but the vector state.
  .globl cpu_diff_faulted
cpu_diff_faulted:
  mov FRAME(HOST_RSP), %rsp
  pushq $2
  popfq
  fxsave64 FRAME(FX)
  upper_halves store_upper_half
  fninit
  pushq $0x1f80
  ldmxcsr (%rsp)
  pop %r15
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret

  .section .note.GNU-stack, "", @progbits
