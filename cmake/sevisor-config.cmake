# The package `sevisor`: target sevisor::sev, for launch digests and their verification (sev/sev.hpp).
include(CMakeFindDependencyMacro)
find_dependency(OpenSSL 3.0 COMPONENTS Crypto)
find_dependency(fmt 9)
include(${CMAKE_CURRENT_LIST_DIR}/sevisor-targets.cmake)
