// The VMSA: a vCPU's register state as the processor saves it, encrypted, at each automatic exit.
// Layout: AMD APM vol. 2 appendix B table B-4; Linux arch/x86/include/asm/svm.h struct sev_es_save_area.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sevisor::sev {

// Attributes packed as in the VMCB: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
struct VmsaSegment {
  std::uint16_t selector;
  std::uint16_t attributes;
  std::uint32_t limit;
  std::uint64_t base;
};
static_assert(sizeof(VmsaSegment) == 16);

struct Vmsa {
  VmsaSegment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;  // 0x000
  std::uint64_t pl_ssp[4];                                   // 0x0a0
  std::uint64_t u_cet;                                       // 0x0c0
  std::uint8_t reserved_0c8[2];
  std::uint8_t vmpl;  // 0x0ca
  std::uint8_t cpl;   // 0x0cb
  std::uint8_t reserved_0cc[4];
  std::uint64_t efer;  // 0x0d0
  std::uint8_t reserved_0d8[104];
  std::uint64_t xss;         // 0x140
  std::uint64_t cr4;         // 0x148
  std::uint64_t cr3;         // 0x150
  std::uint64_t cr0;         // 0x158
  std::uint64_t dr7;         // 0x160
  std::uint64_t dr6;         // 0x168
  std::uint64_t rflags;      // 0x170
  std::uint64_t rip;         // 0x178
  std::uint64_t dr[4];       // 0x180
  std::uint64_t dr_mask[4];  // 0x1a0
  std::uint8_t reserved_1c0[24];
  std::uint64_t rsp;                                      // 0x1d8
  std::uint64_t s_cet, ssp, isst_addr;                    // 0x1e0
  std::uint64_t rax;                                      // 0x1f8
  std::uint64_t star, lstar, cstar, sfmask;               // 0x200
  std::uint64_t kernel_gs_base;                           // 0x220
  std::uint64_t sysenter_cs, sysenter_esp, sysenter_eip;  // 0x228
  std::uint64_t cr2;                                      // 0x240
  std::uint8_t reserved_248[32];
  std::uint64_t g_pat;                                         // 0x268
  std::uint64_t dbgctl;                                        // 0x270
  std::uint64_t br_from, br_to, last_excp_from, last_excp_to;  // 0x278
  std::uint8_t reserved_298[72];
  std::uint32_t spec_ctrl, reserved_2e4;                // 0x2e0
  std::uint32_t pkru;                                   // 0x2e8
  std::uint32_t tsc_aux;                                // 0x2ec
  std::uint64_t tsc_scale, tsc_offset, reg_prot_nonce;  // 0x2f0
  std::uint64_t rcx, rdx, rbx;                          // 0x308
  std::uint64_t reserved_320;
  std::uint64_t rbp, rsi, rdi;                         // 0x328
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15;  // 0x340
  std::uint8_t reserved_380[16];
  std::uint64_t guest_exit_info_1, guest_exit_info_2, guest_exit_int_info, guest_nrip;  // 0x390
  std::uint64_t sev_features;                                                           // 0x3b0
  std::uint64_t vintr_ctrl;                                                             // 0x3b8
  std::uint64_t guest_exit_code, virtual_tom, tlb_id, pcpu_id, event_inj;               // 0x3c0
  std::uint64_t xcr0;                                                                   // 0x3e8
  std::uint8_t reserved_3f0[16];
  std::uint64_t x87_dp;                              // 0x400
  std::uint32_t mxcsr;                               // 0x408
  std::uint16_t x87_ftw, x87_fsw, x87_fcw, x87_fop;  // 0x40c; tags as FXSAVE has them, one bit a register
  std::uint16_t x87_ds, x87_cs;                      // 0x414
  std::uint64_t x87_rip;                             // 0x418
  std::uint8_t x87_registers[80];                    // 0x420: eight 8-byte mantissas, then eight 2-byte exponents
  std::uint8_t xmm[16][16];                          // 0x470
  std::uint8_t ymm_high[16][16];                     // 0x570
  std::uint8_t reserved_670[0x1000 - 0x670];
};
static_assert(offsetof(Vmsa, efer) == 0x0d0 && offsetof(Vmsa, xss) == 0x140 && offsetof(Vmsa, rip) == 0x178);
static_assert(offsetof(Vmsa, rsp) == 0x1d8 && offsetof(Vmsa, rax) == 0x1f8 && offsetof(Vmsa, cr2) == 0x240);
static_assert(offsetof(Vmsa, g_pat) == 0x268 && offsetof(Vmsa, pkru) == 0x2e8 && offsetof(Vmsa, rcx) == 0x308);
static_assert(offsetof(Vmsa, r8) == 0x340 && offsetof(Vmsa, sev_features) == 0x3b0 && offsetof(Vmsa, xcr0) == 0x3e8);
static_assert(offsetof(Vmsa, mxcsr) == 0x408 && offsetof(Vmsa, x87_registers) == 0x420);
static_assert(offsetof(Vmsa, xmm) == 0x470 && offsetof(Vmsa, ymm_high) == 0x570);
static_assert(sizeof(Vmsa) == 0x1000);

}  // namespace sevisor::sev
