/* Where the guest of these tests has what; for C++ and the assembler, in the guest and outside. Addresses are
   guest-physical, and linear too but for the aliases. */
#pragma once

#define NAE_RAM_BYTES 0x400000
#define NAE_PML4 0x1000
#define NAE_PDPT 0x2000
#define NAE_PD_LOW 0x3000
#define NAE_PD_HIGH 0x4000
#define NAE_GDT 0x5000
#define NAE_TSS 0x6000
#define NAE_IMAGE 0x100000
#define NAE_STACK_TOP 0x1f0000 /* of vCPU 0; each further one is NAE_STACK_BYTES below */
#define NAE_STACK_BYTES 0x4000
#define NAE_USER_STACK_TOP 0x1fc000
#define NAE_RING0_STACK_TOP 0x1f8000 /* for exceptions from CPL 3 */

/* The second 2 MiB are shared (C=0). */
#define NAE_SHARED 0x200000
#define NAE_GHCB 0x200000 /* of vCPU 0; a page for each further one behind */
#define NAE_RESULT 0x210000
#define NAE_PARAMETERS 0x211000
#define NAE_ORDER 0x212000
#define NAE_ORDER_DATA 0x213000
#define NAE_SCRATCH 0x220000
#define NAE_SCRATCH_BYTES 0x20000

/* Linear aliases: the shared part with C=1, and device memory with C=1. */
#define NAE_PRIVATE_ALIAS 0x600000
#define NAE_PRIVATE_MMIO 0x800000

#define NAE_READ_ONLY 0xa00000 /* linear; C=0 */
#define NAE_READ_ONLY_GPA 0x1000000
#define NAE_WINDOW 0xc00000 /* linear; C=1, without memory unless a test gives it a slot */
#define NAE_WINDOW_GPA 0x1200000
#define NAE_PAGES 0x40000 /* private, for tests */
#define NAE_MMIO 0xd0000000 /* user space's device */
#define NAE_PORT 0x500      /* user space's device: 16 ports */
#define NAE_ORDER_PORT 0x520

#define NAE_CODE 0x08
#define NAE_DATA 0x10
#define NAE_USER_DATA 0x1b
#define NAE_USER_CODE 0x23
#define NAE_TASK 0x28
#define NAE_USER_DONE 0x30 /* INT vector with which user code comes back */

/* The termination request with which a guest that has found no fault ends. */
#define NAE_DONE_SET 0xf
#define NAE_DONE_REASON 0x42
#define NAE_FAILED_REASON 0x43
