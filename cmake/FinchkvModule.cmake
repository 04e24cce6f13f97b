# finchkv_module(NAME): the static library of one folder, made of all its .cc files; headers stand beside them.
function(finchkv_module name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  add_library(finchkv_${name} STATIC ${sources})
  target_include_directories(finchkv_${name} PUBLIC ${CMAKE_SOURCE_DIR})
endfunction()
