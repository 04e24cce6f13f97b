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

# finchkv_put_beside(LIBRARY...): copies shared libraries (targets or files), and what they need besides the C library,
# beside the binaries.
function(finchkv_put_beside)
  if(NOT FINCHKV_PORTABLE)
    return()
  endif()
  add_custom_target(finchkv_beside ALL)
  foreach(library ${ARGN})
    if(TARGET ${library})
      set(library $<TARGET_FILE:${library}>)
    endif()
    add_custom_command(TARGET finchkv_beside POST_BUILD
      COMMAND ${CMAKE_COMMAND} -DLIBRARY=${library} -DTO=${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
              -P ${CMAKE_SOURCE_DIR}/cmake/copy_library.cmake
      VERBATIM)
  endforeach()
endfunction()
