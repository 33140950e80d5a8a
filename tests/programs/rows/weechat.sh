# Plugins, with six interpreters among them; unloaded and loaded again.
# packages: weechat-headless weechat-plugins weechat-python weechat-perl weechat-ruby weechat-lua
weechat-headless -d "$PWD/home" -r '/plugin unload; /plugin autoload; /print -core loaded; /python eval print(6*7); /perl eval weechat::print("", 6*7); /lua eval print(6*7); /plugin listfull; /quit' 2>&1; echo "$?"
ls home; sed 's/^[^\t]*\t//' home/logs/core.weechatlog | grep -v 'Day changed\|startup\|Session'; 
