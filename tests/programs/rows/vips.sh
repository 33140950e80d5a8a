# Plugins with functions chosen at load time (IFUNC).
# packages: libvips-tools
vips -l >output; echo "$?"; sort output
vips black picture.v 64 64 --bands 3 && vips invert picture.v inverted.png; echo "$?"
vips avg inverted.png; vips gaussblur inverted.png blurred.jpg 2 && vips avg blurred.jpg; echo "$?"
vips copy nonesuch.png x.png 2>&1; echo "$?"
