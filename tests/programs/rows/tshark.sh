# Dissectors and codecs.
# packages: tshark
tshark -G plugins 2>&1; echo "$?"
printf '0000 00 00 00 00 00 01 00 00 00 00 00 02 08 00 45 00 00 1c 00 00 00 00 40 11 7c cf 7f 00 00 01 7f 00 00 01 00 35 00 35 00 08 00 00\n' >packet
text2pcap -q packet packet.pcap 2>/dev/null; echo "$?"
tshark -r packet.pcap -V -o frame.generate_md5_hash:TRUE >output 2>/dev/null; echo "$?"
grep -v -i -e time -e arrival -e epoch output
