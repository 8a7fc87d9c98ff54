# Read by CMake right after llama.cpp's project() call (CMAKE_PROJECT_llama.cpp_INCLUDE in CMakePresets.json).
# llama-cpp-python forces LLAMA_BUILD_COMMON to ON in the cache, so -DLLAMA_BUILD_COMMON=OFF is ignored; a plain
# variable of llama.cpp's own scope wins over the cache. Nothing the package loads links to "common", and it is
# half of the compile time (193 steps become 83 together with LLAVA_BUILD=OFF). llama-server, which scripts/bench_peers.py
# compiles from llama.cpp alone, needs it.
if(NOT PROJECT_IS_TOP_LEVEL)
  set(LLAMA_BUILD_COMMON OFF)
endif()

# The headers of GCC 12 tell its optimiser that the tile instructions of AMX read nothing, or 8 bytes of 64, so what they read may
# never be written: a processor with AMX (Intel since Sapphire Rapids) then ends the process with SIGSEGV at the first prompt.
# A header of the same name comes first, and says what they read.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(amx_headers "${CMAKE_BINARY_DIR}/amx")
  file(WRITE "${amx_headers}/amxtileintrin.h" [=[
#include_next <amxtileintrin.h>
#undef _tile_loadconfig
#undef _tile_loadd
#define _tile_loadconfig(config) \
  __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const char(*)[64])(config)))
#define _tile_loadd(tile, base, stride) _tile_loadd_from_memory(tile, base, stride)
#define _tile_loadd_from_memory(tile, base, stride) \
  __asm__ volatile("{tileloadd\t(%0,%1,1), %%tmm" #tile "|tileloadd\t%%tmm" #tile ", [%0+%1*1]}" \
                   : : "r"((const void *)(base)), "r"((long)(stride)) : "memory")
]=])
  include_directories(BEFORE "${amx_headers}")
endif()

# Where a processor computes in 16 bits (AVX512-FP16: Intel since Sapphire Rapids), llama.cpp adds values up 128 at a time, and one by one
# what is left: all of a head of 64 numbers. Without it, it adds 16 at a time in 32 bits, which is 2 to 3 times as fast for those, and more exact.
if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-mno-avx512fp16 HAS_NO_AVX512FP16)
  if(HAS_NO_AVX512FP16)
    add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-mno-avx512fp16>") # nvcc does not know it
  endif()
endif()
