# sevisor_fuzz(NAME SOURCES ... USES ...): a libFuzzer program fuzz_NAME (LLVMFuzzerTestOneInput in one of the sources).
# It exists only in the preset `fuzz`; the target fuzz_targets builds them all.
add_custom_target(fuzz_targets)
function(sevisor_fuzz name)
  if(NOT SEVISOR_FUZZ)
    return()
  endif()
  cmake_parse_arguments(FUZZ "" "" "SOURCES;USES" ${ARGN})
  add_executable(fuzz_${name} ${FUZZ_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE ${FUZZ_USES} sevisor_warnings)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_dependencies(fuzz_targets fuzz_${name})
endfunction()
