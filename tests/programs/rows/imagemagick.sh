# Every coder; one picture through ten formats.
# packages: imagemagick
convert-im6.q16 -list format; echo "$?"
convert-im6.q16 -size 64x64 gradient:red-blue -swirl 60 +set date:create +set date:modify picture.png; echo "$?"
for format in gif jpg bmp tga ppm tiff pcx sgi xpm webp
do
  convert-im6.q16 picture.png "picture.$format" 2>&1; echo "$?"
  convert-im6.q16 "picture.$format" -depth 8 rgb:pixels 2>&1; echo "$?"
  sha256sum <pixels
done
identify-im6.q16 -format '%m %w %h %z\n' picture.png 2>&1; echo "$?"
identify-im6.q16 nonesuch.png 2>&1; echo "$?"
