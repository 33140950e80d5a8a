# Every plugin of a new registry; pipelines.
# packages: gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-tools
export GST_REGISTRY=$PWD/registry GST_REGISTRY_FORK=no
gst-inspect-1.0; echo "$?"
for plugin in vorbis theora audioconvert videoscale matroska isomp4 jpeg png
do
  gst-inspect-1.0 "$plugin"; echo "$?"
done
gst-launch-1.0 -q audiotestsrc num-buffers=20 ! audioconvert ! wavenc ! filesink location=sound.wav; echo "$?"
sha256sum sound.wav
gst-launch-1.0 -q videotestsrc num-buffers=5 ! videoconvert ! video/x-raw,format=I420,width=64,height=48 ! filesink location=picture.yuv; echo "$?"
sha256sum picture.yuv
gst-launch-1.0 -q filesrc location=sound.wav ! decodebin ! audioresample ! fakesink; echo "$?"
gst-launch-1.0 -q nonesuch ! fakesink 2>&1; echo "$?"
