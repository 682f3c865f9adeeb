/* Where the firmware's things lie in guest-physical memory, for assembly, the linker script and C++ alike: macros only.
 * All addresses below 1 MiB are RAM on every machine; docs/firmware.md. */
#pragma once

/* Given to the operating system as RAM once it runs. */
#define FW_BOOT_PARAMS 0x1000 /* struct boot_params, 4 KiB */
#define FW_COMMAND_LINE 0x2000
#define FW_COMMAND_LINE_SIZE 0x4000
#define FW_START_INFO 0x6000  /* struct hvm_start_info and what belongs to it, 4 KiB */
#define FW_EARLY_STATE 0x7000 /* what the 32-bit stage found out: struct EarlyState */

/* Reserved in the memory map. */
#define FW_AP_JUMP_TABLE 0x8000 /* private page: u16 IP, u16 CS; written by the operating system */
#define FW_AP_COUNT 0x8010      /* u32 in the same page: application processors that have started */
#define FW_AP_LIMIT 0x8014      /* u32: so many there are; any more halts */
#define FW_AP_DONE 0x8018       /* u32: so many have set their memory type */
#define FW_AP_TABLES 0x801c     /* u32: address of the page tables of those that hold */
#define FW_AP_MSR 0x8020        /* u32 number (0: none), u32 low, u32 high half: the memory type, which they write */
#define FW_AP_VERSION 0x802c    /* u32: of the GHCB protocol */
#define FW_AP_STACKS 0x8030     /* u32: address of their stacks, FW_AP_STACK_SIZE bytes each */
#define FW_AP_GHCBS 0x8034      /* u32: address of their GHCBs, shared */
#define FW_AP_PLAIN_CODE 0x40   /* offset of ap_plain's body in the page, behind these */
#define FW_AP_STACK_SHIFT 6     /* what an NMI pushes: 40 bytes from a multiple of 16 down */
#define FW_AP_STACK_SIZE (1 << FW_AP_STACK_SHIFT)
#define FW_SECRET_PAGE 0x9000   /* private page with the two areas; RAM to the operating system */
#define FW_SECRET_AREA 0x9000   /* named in the footer table: LAUNCH_SECRET puts a secret here */
#define FW_SECRET_AREA_SIZE 0xc00
#define FW_HASHES_AREA 0x9c00 /* named in the footer table: the table of kernel hashes, measured at launch */
#define FW_HASHES_AREA_SIZE 0x400
#define FW_GHCB 0xa000 /* shared page */
#define FW_RESERVED_BEGIN 0x8000
#define FW_RESERVED_END 0xb000

/* Given to the operating system as RAM: it leaves these tables before it uses the memory. */
#define FW_PAGE_TABLES 0x10000 /* PML4, PDPT, four PDs, the PT of the first 2 MiB */
#define FW_PAGE_TABLES_SIZE 0x7000
#define FW_STAGE2 0x20000 /* the 64-bit stage runs here: code, data, then the stack at the end */
#define FW_STACK_BOTTOM 0x38000
#define FW_STACK_TOP 0x40000

/* Reserved: shared memory for fw_cfg DMA, so that no page that was shared comes to the operating system as RAM. */
#define FW_BOUNCE 0x40000
#define FW_BOUNCE_SIZE 0x40000

/* Where systems without UEFI look for SMBIOS: from 0xF0000 on, reserved like all from FW_LOW_POOL_END to 1 MiB. */
#define FW_SMBIOS_ENTRY 0xf0000

/* What is loaded goes between these. */
#define FW_HIGH_BEGIN 0x100000
#define FW_LOW_LIMIT 0xc0000000

/* ACPI tables that must lie below 1 MiB. */
#define FW_LOW_POOL 0x80000
#define FW_LOW_POOL_END 0x9f000

/* The image: the last 64 KiB below 4 GiB. Its last page is the reset page, the one before it the hold of the application
 * processors. */
#define FW_IMAGE 0xffff0000
#define FW_IMAGE_SIZE 0x10000
#define FW_HOLD_PAGE 0xffffe000
#define FW_RESET_PAGE 0xfffff000

/* Fields of struct EarlyState. */
#define FW_STATE_SEV_STATUS 0x00 /* u64 SEV_STATUS MSR, 0 without SEV */
#define FW_STATE_C_BIT_MASK 0x08 /* u64, 0 without SEV */
#define FW_STATE_CHECK 0x10      /* u64, random, written before paging is on */
#define FW_STATE_VC_SEEN 0x18    /* u32, 1 once a #VC came */

/* Reasons of termination that the assembly gives; firmware/failure.hpp has the whole list. */
#define FW_FAILURE_EARLY_VC 1
#define FW_FAILURE_MSR_REPLY 2
#define FW_FAILURE_C_BIT 3
#define FW_FAILURE_SNP 4
#define FW_FAILURE_RDRAND 5
#define FW_FAILURE_AP_HOLD 6

/* Selectors. 0x10 and 0x18 are what the Linux 64-bit boot protocol asks for. */
#define FW_SELECTOR_CODE32 0x08
#define FW_SELECTOR_CODE64 0x10
#define FW_SELECTOR_DATA 0x18
#define FW_SELECTOR_TASK 0x20 /* only at the PVH entry */
