# Software rendering: drivers with LLVM in them, and TLS descriptors.
# packages: mesa-utils libegl-mesa0 libgl1-mesa-dri
export EGL_PLATFORM=surfaceless LIBGL_ALWAYS_SOFTWARE=1
eglinfo -B; echo "$?"
