# cmake --install: the command, the shared library, its header, and what pkg-config and find_package need. Nothing in the
# prefix names the prefix, so it may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS finchkv RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS finchkv_shared EXPORT finchkv LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES capi/finchkv.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/finchkv)
install(EXPORT finchkv NAMESPACE finchkv:: FILE finchkvTargets.cmake DESTINATION ${package})
file(CONFIGURE OUTPUT finchkvConfig.cmake
  CONTENT "include(\"\${CMAKE_CURRENT_LIST_DIR}/finchkvTargets.cmake\")\n" @ONLY)
write_basic_package_version_file(finchkvConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/finchkvConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/finchkvConfigVersion.cmake
  DESTINATION ${package})

# From DIR/pkgconfig up to the prefix, however deep DIR lies.
file(RELATIVE_PATH finchkv_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
file(CONFIGURE OUTPUT finchkv.pc @ONLY CONTENT [[
prefix=${pcfiledir}/@finchkv_up@
libdir=${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=${prefix}/@CMAKE_INSTALL_INCLUDEDIR@

Name: finchkv
Description: A persistent store for what language models have read
Version: @PROJECT_VERSION@
Libs: -L${libdir} -lfinchkv
Cflags: -I${includedir}
]])
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/finchkv.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
