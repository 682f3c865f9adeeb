# Warnings are errors in every room; third-party headers come in as SYSTEM.
add_library(sevisor_warnings INTERFACE)
target_compile_options(sevisor_warnings INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion -Werror)
