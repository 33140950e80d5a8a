# Drivers of OpenCL, one of which compiles with LLVM.
# packages: clinfo pocl-opencl-icd
export POCL_CACHE_DIR=$PWD
clinfo; echo "$?"
