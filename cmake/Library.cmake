# Installs sev/ for other programs: cmake --install BUILD --component library.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/sevisor)
set_target_properties(sevisor_sev PROPERTIES EXPORT_NAME sev)
set_target_properties(sevisor_base PROPERTIES EXPORT_NAME base)
set_target_properties(sevisor_warnings PROPERTIES EXPORT_NAME warnings)
install(TARGETS sevisor_sev sevisor_base sevisor_warnings EXPORT sevisor
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
foreach(room base sev)
  file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${room}/*.hpp)
  install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/sevisor/${room} COMPONENT library)
endforeach()
install(EXPORT sevisor NAMESPACE sevisor:: FILE sevisor-targets.cmake DESTINATION ${package_folder} COMPONENT library)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/sevisor-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/sevisor-config.cmake ${PROJECT_BINARY_DIR}/sevisor-config-version.cmake
        DESTINATION ${package_folder} COMPONENT library)
