# FINCHKV_PORTABLE: binaries for machines that lack our libraries. What Debian has as static libraries is linked so; what
# it has not (oneDNN, and what that needs) lies beside the binaries, which look there first.
if(FINCHKV_PORTABLE)
  set(OPENSSL_USE_STATIC_LIBS ON)
  # An old-style run path: it also holds for what libdnnl itself needs.
  add_link_options(-static-libstdc++ -static-libgcc -Wl,--disable-new-dtags)
  set(CMAKE_BUILD_RPATH "$ORIGIN")
endif()

# finchkv_pick(VAR SHARED NAME...): VAR becomes the shared target; in a portable build the static libraries libNAME.a, or
# the targets that are named like NAME::NAME.
function(finchkv_pick var shared)
  if(NOT FINCHKV_PORTABLE)
    set(${var} ${shared} PARENT_SCOPE)
    return()
  endif()
  set(found)
  foreach(name ${ARGN})
    if(name MATCHES "::")
      list(APPEND found ${name})
    else()
      find_library(FINCHKV_STATIC_${name} NAMES lib${name}.a REQUIRED)
      list(APPEND found ${FINCHKV_STATIC_${name}})
    endif()
  endforeach()
  set(${var} ${found} PARENT_SCOPE)
endfunction()

# finchkv_pick_unless_shared(VAR SHARED NAME...): the same where the static libraries were not made for shared ones: what
# goes into a shared library is linked with SHARED, which must then lie beside it.
function(finchkv_pick_unless_shared var shared)
  finchkv_pick(found ${shared} ${ARGN})
  if(FINCHKV_PORTABLE)
    set(into_shared $<STREQUAL:$<TARGET_PROPERTY:TYPE>,SHARED_LIBRARY>)
    list(TRANSFORM found REPLACE "(.+)" "$<$<NOT:${into_shared}>:\\1>")
    list(APPEND found "$<${into_shared}:${shared}>")
  endif()
  set(${var} ${found} PARENT_SCOPE)
endfunction()

# finchkv_portable_shared(TARGET): a shared library of a portable build. It has the machine's C++ runtime, as what lies
# beside it has: an exception that one of them throws and another one catches needs a single one.
function(finchkv_portable_shared target)
  if(FINCHKV_PORTABLE)
    get_target_property(options ${target} LINK_OPTIONS)
    list(REMOVE_ITEM options -static-libstdc++ -static-libgcc)
    set_target_properties(${target} PROPERTIES LINK_OPTIONS "${options}")
  endif()
endfunction()

# finchkv_put_beside(LIBRARY...): copies shared libraries (targets or files), and what they need besides the C library,
# beside the binaries.
function(finchkv_put_beside)
  if(NOT FINCHKV_PORTABLE)
    return()
  endif()
  if(NOT TARGET finchkv_beside)
    add_custom_target(finchkv_beside ALL)
  endif()
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  add_custom_target(finchkv_beside_${folder})
  add_dependencies(finchkv_beside finchkv_beside_${folder})
  foreach(library ${ARGN})
    if(TARGET ${library})
      set(library $<TARGET_FILE:${library}>)
    endif()
    add_custom_command(TARGET finchkv_beside_${folder} POST_BUILD
      COMMAND ${CMAKE_COMMAND} -DLIBRARY=${library} -DTO=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
              -P ${CMAKE_SOURCE_DIR}/cmake/copy_library.cmake
      VERBATIM)
  endforeach()
endfunction()
