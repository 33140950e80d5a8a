# Plugins, with interpreters among them; unloaded and loaded again.
# packages: weechat-headless weechat-plugins weechat-python weechat-perl weechat-ruby weechat-lua
weechat-headless -d "$PWD/home" -r '/plugin unload' -r '/plugin autoload' -r '/set logger.file.flush_delay 0' \
  -r '/python eval print(6*7)' -r '/perl eval weechat::print("", 6*7)' -r '/lua eval weechat.print("", 6*7)' \
  -r '/plugin list -o' -r '/quit' 2>&1; echo "$?"
ls home; cut -f3 home/logs/core.weechat.weechatlog | grep -e lugin -e 42
