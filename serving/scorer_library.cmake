# The library sluice::scorer: scoring for other programs, by what serving/include/sluice/scorer.h
# says. It is made of the files that scoring needs, compiled once more for a shared library: it
# needs no RocksDB, no librdkafka, and toml++ as a header only. A file that is missing here shows when it is linked.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(scorer_files
  base/aligned_array base/check base/file base/hash base/lanes base/micros base/time base/utf8
  config/key_list config/load config/recipe config/recipe_expression config/recipe_name config/recipe_nodes
  config/rules config/schema config/schema_serving config/suggest config/toml_tree
  ingest/decoder ingest/event ingest/features ingest/record_template
  learner/batch learner/buckets learner/embedding_table learner/initial_values learner/kernels
  learner/kernels_amx learner/kernels_avx2 learner/kernels_avx512 learner/model
  learner/model_tensors learner/objective learner/optimizer learner/row_changes learner/row_digest learner/schema learner/scoring_model
  learner/served_rows learner/tower_pass learner/towers
  serving/scorer serving/scorer_library serving/snapshot_tensors serving/snapshots
  store/published_folder store/tensors store/whole_numbers)
set(scorer_sources ${CMAKE_BINARY_DIR}/built_in_recipes.cc)
foreach(file ${scorer_files})
  list(APPEND scorer_sources ${CMAKE_SOURCE_DIR}/${file}.cc)
  cmake_path(GET file PARENT_PATH folder)
  set_source_files_properties(${CMAKE_SOURCE_DIR}/${file}.cc PROPERTIES UNITY_GROUP ${folder})
endforeach()

add_library(sluice_scorer SHARED ${scorer_sources})
add_library(sluice::scorer ALIAS sluice_scorer)
set_target_properties(sluice_scorer PROPERTIES
  EXPORT_NAME scorer
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}  # until 1.0 any version may change it
  UNITY_BUILD ${SLUICE_UNITY}
  UNITY_BUILD_MODE GROUP  # by folder
  CXX_VISIBILITY_PRESET hidden
  VISIBILITY_INLINES_HIDDEN ON
  LINK_DEPENDS ${CMAKE_SOURCE_DIR}/serving/scorer_library.map)
target_link_libraries(sluice_scorer PRIVATE
  $<BUILD_INTERFACE:sluice_options> $<BUILD_INTERFACE:tl::expected>
  $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>
  $<BUILD_INTERFACE:simdjson::simdjson> $<BUILD_INTERFACE:PkgConfig::XXHASH>
  $<BUILD_INTERFACE:Threads::Threads>)
target_link_options(sluice_scorer PRIVATE
  -Wl,--as-needed -Wl,--version-script=${CMAKE_SOURCE_DIR}/serving/scorer_library.map)
if(NOT SLUICE_SANITIZE)  # whose run-time library comes with the program
  target_link_options(sluice_scorer PRIVATE -Wl,--no-undefined)
endif()
target_include_directories(sluice_scorer INTERFACE
  $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/serving/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(sluice_scorer INTERFACE cxx_std_17)

install(TARGETS sluice_scorer EXPORT sluice COMPONENT library
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES serving/include/sluice/scorer.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/sluice
  COMPONENT library)
install(EXPORT sluice NAMESPACE sluice:: FILE sluice-config.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/sluice COMPONENT library)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sluice-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/sluice-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/sluice COMPONENT library)
