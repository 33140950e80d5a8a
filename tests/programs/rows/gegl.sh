# Every operation; a picture through some.
# packages: gegl
gegl --list-all; echo "$?"
gegl -o picture.png -- checkerboard x=8 y=8 crop width=64 height=64 gaussian-blur std-dev-x=2; echo "$?"
gegl picture.png -o copy.ppm -- invert; echo "$?"; sha256sum copy.ppm
