# sevisor_link_in(TARGET): what a program uses of the C++ runtime, fmt and spdlog becomes part of it, and what it does not
# use of them is dropped. Of 40 guests that start at a time each is quicker by a fifth and 2 MiB smaller: of what the loader did, nine
# tenths were symbols of these three looked up by name, and of a shared library 64 KiB are resident around each page that
# is touched (docs/performance.md). libcrypto stays shared, though it is as large: a security update of it must reach the
# program.
#
# Debian has fmt and spdlog as shared libraries only; their headers hold the code. Other versions than its own, which may
# want other templates instantiated, are linked as they are.
set(link_in_formats FALSE)
if(fmt_VERSION VERSION_GREATER_EQUAL 9.1 AND fmt_VERSION VERSION_LESS 10
   AND spdlog_VERSION VERSION_GREATER_EQUAL 1.10 AND spdlog_VERSION VERSION_LESS 1.11)
  set(link_in_formats TRUE)
  add_library(sevisor_linked_in OBJECT cmake/linked_in/fmt.cpp cmake/linked_in/spdlog.cpp)
  target_compile_options(sevisor_linked_in PRIVATE -ffunction-sections -fdata-sections)
  target_link_libraries(sevisor_linked_in PRIVATE fmt::fmt spdlog::spdlog)
endif()

function(sevisor_link_in target)
  if(SEVISOR_ASAN OR SEVISOR_FUZZ OR NOT link_in_formats)  # the sanitizers want the shared runtime
    return()
  endif()
  target_link_libraries(${target} PRIVATE sevisor_linked_in)
  # These objects come first, so nothing is left for the shared libraries to define, and --as-needed leaves them out.
  target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc -Wl,--as-needed -Wl,--gc-sections)
endfunction()
