#include "tests/check_cpu/comparison.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/integer.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::check_cpu {

using namespace cpu_diff;

namespace {

bool has_operand_of(const Encoding& e, ZydisRegisterClass wanted) {
  const auto matches = [wanted](const ZydisDecodedOperand& o) {
    return o.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o.reg.value) == wanted;
  };
  return std::any_of(e.operands.begin(), e.operands.begin() + e.info.operand_count_visible, matches);
}

bool is_one_of(ZydisMnemonic mnemonic, std::initializer_list<ZydisMnemonic> list) {
  return std::find(list.begin(), list.end(), mnemonic) != list.end();
}

bool is_extension(const Encoding& e, std::initializer_list<ZydisISAExt> list) {
  return std::find(list.begin(), list.end(), e.info.meta.isa_ext) != list.end();
}

bool is_vector(const Encoding& e) {
  return is_extension(
      e, {ZYDIS_ISA_EXT_X87,        ZYDIS_ISA_EXT_MMX,      ZYDIS_ISA_EXT_SSE,        ZYDIS_ISA_EXT_SSE2,
          ZYDIS_ISA_EXT_SSE3,       ZYDIS_ISA_EXT_SSSE3,    ZYDIS_ISA_EXT_SSE4,       ZYDIS_ISA_EXT_SSE4A,
          ZYDIS_ISA_EXT_AES,        ZYDIS_ISA_EXT_SHA,      ZYDIS_ISA_EXT_AVX,        ZYDIS_ISA_EXT_AVX2,
          ZYDIS_ISA_EXT_AVX2GATHER, ZYDIS_ISA_EXT_F16C,     ZYDIS_ISA_EXT_FMA,        ZYDIS_ISA_EXT_PCLMULQDQ,
          ZYDIS_ISA_EXT_AVXAES,     ZYDIS_ISA_EXT_VAES,     ZYDIS_ISA_EXT_VPCLMULQDQ, ZYDIS_ISA_EXT_XSAVE,
          ZYDIS_ISA_EXT_XSAVEC,     ZYDIS_ISA_EXT_XSAVEOPT, ZYDIS_ISA_EXT_XSAVES});
}

// In the order asked: the first that holds is given.
struct Reason {
  bool (*holds)(const Encoding&);
  std::string_view text;
};
constexpr std::array kReasons = std::to_array<Reason>({
    {[](const Encoding& e) {
       return (e.info.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0 ||
              is_one_of(e.info.mnemonic, {ZYDIS_MNEMONIC_LGDT, ZYDIS_MNEMONIC_LIDT});
     },
     "privileged: guest programs in tests/emulator_cpu_system"},
    {[](const Encoding& e) {
       return is_extension(e, {ZYDIS_ISA_EXT_SVM, ZYDIS_ISA_EXT_RDPRU}) ||
              is_one_of(e.info.mnemonic,
                        {ZYDIS_MNEMONIC_IN,      ZYDIS_MNEMONIC_OUT,      ZYDIS_MNEMONIC_INSB,   ZYDIS_MNEMONIC_INSW,
                         ZYDIS_MNEMONIC_INSD,    ZYDIS_MNEMONIC_OUTSB,    ZYDIS_MNEMONIC_OUTSW,  ZYDIS_MNEMONIC_OUTSD,
                         ZYDIS_MNEMONIC_CPUID,   ZYDIS_MNEMONIC_RDTSC,    ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_RDPMC,
                         ZYDIS_MNEMONIC_VMMCALL, ZYDIS_MNEMONIC_VMCALL,   ZYDIS_MNEMONIC_PAUSE,  ZYDIS_MNEMONIC_MONITOR,
                         ZYDIS_MNEMONIC_MWAIT,   ZYDIS_MNEMONIC_MONITORX, ZYDIS_MNEMONIC_MWAITX, ZYDIS_MNEMONIC_WBINVD,
                         ZYDIS_MNEMONIC_XGETBV,  ZYDIS_MNEMONIC_XSETBV,   ZYDIS_MNEMONIC_INVLPGA});
     },
     "intercepted from an SEV-ES guest, or the answer is the machine's own"},
    {[](const Encoding& e) {
       return is_one_of(e.info.mnemonic, {ZYDIS_MNEMONIC_RDRAND, ZYDIS_MNEMONIC_RDSEED, ZYDIS_MNEMONIC_RDPID});
     },
     "the answer differs from one execution to the next"},
    {[](const Encoding& e) {
       return is_one_of(e.info.mnemonic,
                        {ZYDIS_MNEMONIC_INT, ZYDIS_MNEMONIC_INT1, ZYDIS_MNEMONIC_INT3, ZYDIS_MNEMONIC_INTO,
                         ZYDIS_MNEMONIC_SYSCALL, ZYDIS_MNEMONIC_SYSENTER, ZYDIS_MNEMONIC_SYSRET, ZYDIS_MNEMONIC_SYSEXIT,
                         ZYDIS_MNEMONIC_IRET, ZYDIS_MNEMONIC_IRETD, ZYDIS_MNEMONIC_IRETQ});
     },
     "enters or leaves the host's kernel: guest programs in tests/emulator_cpu_system"},
    {[](const Encoding& e) { return e.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR; },
     "far transfers need descriptors of the host's: guest programs in tests/emulator_cpu_system"},
    {[](const Encoding& e) {
       return has_operand_of(e, ZYDIS_REGCLASS_SEGMENT) ||
              is_one_of(e.info.mnemonic,
                        {ZYDIS_MNEMONIC_LDS, ZYDIS_MNEMONIC_LES, ZYDIS_MNEMONIC_LFS, ZYDIS_MNEMONIC_LGS,
                         ZYDIS_MNEMONIC_LSS, ZYDIS_MNEMONIC_LAR, ZYDIS_MNEMONIC_LSL, ZYDIS_MNEMONIC_VERR,
                         ZYDIS_MNEMONIC_VERW, ZYDIS_MNEMONIC_ARPL, ZYDIS_MNEMONIC_SLDT, ZYDIS_MNEMONIC_STR,
                         ZYDIS_MNEMONIC_SGDT, ZYDIS_MNEMONIC_SIDT, ZYDIS_MNEMONIC_SMSW, ZYDIS_MNEMONIC_RDFSBASE,
                         ZYDIS_MNEMONIC_RDGSBASE, ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE});
     },
     "reads or loads segments and tables, which are the host's: guest programs in tests/emulator_cpu_system"},
    {[](const Encoding& e) {
       return is_one_of(e.info.mnemonic,
                        {ZYDIS_MNEMONIC_PUSHF, ZYDIS_MNEMONIC_PUSHFD, ZYDIS_MNEMONIC_PUSHFQ, ZYDIS_MNEMONIC_POPF,
                         ZYDIS_MNEMONIC_POPFD, ZYDIS_MNEMONIC_POPFQ, ZYDIS_MNEMONIC_CLI, ZYDIS_MNEMONIC_STI});
     },
     "TF, AC and ID would act on this process: guest programs in tests/emulator_cpu_system"},
    {[](const Encoding& e) {
       return is_one_of(e.info.mnemonic, {ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_CLFLUSHOPT, ZYDIS_MNEMONIC_CLWB,
                                          ZYDIS_MNEMONIC_CLZERO, ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE,
                                          ZYDIS_MNEMONIC_SFENCE, ZYDIS_MNEMONIC_SERIALIZE});
     },
     "caches and ordering: nothing to see, or AMD's alone"},
    {[](const Encoding& e) { return left_out(host_processor(), e); },
     "this processor does otherwise, as listed at the beginning"},
    {is_vector, "an extension with vector state that this host lacks"},
    {[](const Encoding&) { return true; }, "the host lacks the extension, or nothing aims its operands yet"},
});

}  // namespace

Choice choose(Engine& engine, Mode mode, const Encoding& sample) {
  const Support support = engine.support(sample.code(), mode);
  if (support == Support::kUnimplemented) return {Verdict::kNotCompared, "not implemented: stops the guest"};
  if (sample.info.mnemonic == ZYDIS_MNEMONIC_BSWAP && sample.info.operand_width == 16) {
    return {Verdict::kNotCompared, "the manuals leave the result undefined"};
  }
  if (integer_wanted(sample)) return {};
  if (support == Support::kUndefined) return {Verdict::kNotOffered, {}};
  if (vector_wanted(sample)) return {};
  const auto* reason = std::find_if(kReasons.begin(), kReasons.end(), [&](const Reason& r) { return r.holds(sample); });
  return {Verdict::kNotCompared, reason->text};
}

Outcome compare(Random& random, Mode mode, Encoding& e, Native& native, Engine& engine) {
  const bool vector = !integer_wanted(e);
  Machine before = random_machine(random);
  if (vector) randomize_vector(random, before);
  narrow(mode, before);
  if (!aim(random, mode, e, before) || (!vector && integer_result_undefined(e, before))) return {};
  if (vector) prepare_operand(random, e, before);
  narrow(mode, before);
  Machine expected = before;
  Machine actual = before;
  native.run(e.code(), mode, expected);
  if (mode == Mode::k32) std::copy(before.regs.gpr.begin() + 8, before.regs.gpr.end(), expected.regs.gpr.begin() + 8);
  Outcome outcome{.ran = true, .completed = expected.exception == kNoException, .failed = false, .difference = {}};
  try {
    engine.run(e.code(), mode, actual);
    if (vector) {
      forgive_vector(mode, e, before, expected, actual);
      forgive_host(host_processor(), {mode, e, before}, expected, actual);
      outcome.difference = difference(expected, actual, 0) + vector_difference(mode, expected, actual);
    } else {
      std::uint64_t ignored = undefined_flags(e, before);
      // The engine's small budget interrupts a long comparison before it faults.
      if (!outcome.completed && e.info.meta.category == ZYDIS_CATEGORY_STRINGOP) ignored = ~std::uint64_t{0};
      forgive_integer(e, expected, actual);
      forgive_host(host_processor(), {mode, e, before}, expected, actual);
      outcome.difference = difference(expected, actual, ignored);
    }
  } catch (const std::runtime_error& error) {
    outcome.failed = true;
    outcome.difference = std::string("  ") + error.what() + "\n";
  }
  if (!outcome.difference.empty()) {
    outcome.difference = describe(mode, e, before) + (vector ? describe_vector(before) : "") + outcome.difference;
  }
  return outcome;
}

}  // namespace sevisor::check_cpu
