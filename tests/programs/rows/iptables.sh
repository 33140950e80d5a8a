# `--help` of matches and targets, each a plugin.
# packages: iptables
# quick
for match in addrtype comment connlimit conntrack hashlimit icmp iprange limit mac mark multiport owner recent set state statistic string tcp time tos u32 udp
do
  iptables -m "$match" --help 2>&1; echo "$?"
done
for target in CONNMARK DNAT LOG MARK MASQUERADE NFQUEUE REJECT SNAT TCPMSS
do
  iptables -j "$target" --help 2>&1; echo "$?"
done
iptables-translate -A INPUT -p tcp -m multiport --dports 80,443 -m limit --limit 5/second -j ACCEPT
iptables -m nonesuch --help 2>&1; echo "$?"
