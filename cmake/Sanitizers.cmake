option(SEVISOR_ASAN "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
option(SEVISOR_FUZZ "Build the libFuzzer targets (needs clang)" OFF)

if(SEVISOR_ASAN OR SEVISOR_FUZZ)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The instrumentation makes GCC take initialised members of the standard library for uninitialised (GCC PR 105562).
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
endif()
if(SEVISOR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
