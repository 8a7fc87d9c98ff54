# Read by CMake right after llama.cpp's project() call (CMAKE_PROJECT_llama.cpp_INCLUDE in CMakePresets.json).
# llama-cpp-python forces LLAMA_BUILD_COMMON to ON in the cache, so -DLLAMA_BUILD_COMMON=OFF is ignored; a plain
# variable of llama.cpp's own scope wins over the cache. Nothing the package loads links to "common", and it is
# half of the compile time (193 steps become 83 together with LLAVA_BUILD=OFF).
set(LLAMA_BUILD_COMMON OFF)
