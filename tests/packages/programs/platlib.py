# projects: markupsafe
import markupsafe
from markupsafe import Markup, _speedups, escape

print(escape("<a href='x'>&\"é</a>"), Markup("<b>%s</b>") % "<i>", Markup("a &lt; b").unescape())
print(_speedups._escape_inner("<>&"), markupsafe.Markup("<p>one <b>two</b></p>").striptags())
