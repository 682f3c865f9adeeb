# What a user of the program gets, `cmake --install BUILD --component runtime`, and Debian packages of it and of the library:
# `cpack` in the build folder, or ./dev package.
include(GNUInstallDirs)

set(man_pages ${PROJECT_BINARY_DIR}/man)
set(man_stamp ${man_pages}/stamp)
if(TARGET sevisor_emulator_kvm)
  add_custom_command(OUTPUT ${man_stamp}
    COMMAND bash ${PROJECT_SOURCE_DIR}/packaging/man-pages.sh $<TARGET_FILE:sevisor> ${PROJECT_VERSION} ${man_pages}
    COMMAND ${CMAKE_COMMAND} -E touch ${man_stamp}
    DEPENDS sevisor packaging/man-pages.sh packaging/man-page.awk VERBATIM)
  add_custom_target(man ALL DEPENDS ${man_stamp})
endif()

install(DIRECTORY ${man_pages}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime FILES_MATCHING PATTERN *.1.gz)
install(FILES packaging/sevisor.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME sevisor
        COMPONENT runtime)
install(FILES packaging/sevisor.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions RENAME _sevisor COMPONENT runtime)
install(FILES packaging/sevisor.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT runtime)
install(PROGRAMS packaging/sevisor-demo DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(FILES scripts/guest-init DESTINATION ${CMAKE_INSTALL_DATADIR}/sevisor/demo RENAME init
        PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE COMPONENT runtime)
# systemd looks for units below /usr and /usr/local, whatever the architecture's library folder is.
install(FILES share/systemd/sevisor@.service DESTINATION lib/systemd/system COMPONENT runtime)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright COMPONENT runtime)
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME sevisor)
set(CPACK_PACKAGE_VENDOR sevisor)
set(CPACK_PACKAGE_CONTACT "The sevisor maintainers <maintainers@sevisor.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_OUTPUT_FILE_PREFIX ${PROJECT_BINARY_DIR}/package)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime library)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS OFF)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME sevisor)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS "busybox-static, cpio")
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION
    "Starts SEV-ES guests on an EPYC machine's KVM, or on an emulated SEV-ES host anywhere,\n and has the tools of their owners: measure, verify, session, secret, certs, firmware.")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libsevisor-dev)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS "libssl-dev (>= 3), libfmt-dev (>= 9)")
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION
    "The library sevisor::sev, a CMake package: launch digests, their verification, sessions,\n secrets and certificates of SEV-ES guests.")
include(CPack)
