# Every plugin of VLC, for its index: many outlive the open that brought them in.
# packages: vlc-bin vlc-plugin-base libvlc-bin
cp -rp /usr/lib/x86_64-linux-gnu/vlc/plugins .
rm -f plugins/plugins.dat
/usr/lib/x86_64-linux-gnu/vlc/vlc-cache-gen plugins; echo "$?"
sha256sum plugins/plugins.dat
/usr/lib/x86_64-linux-gnu/vlc/vlc-cache-gen nonesuch; echo "$?"
