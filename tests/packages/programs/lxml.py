# projects: lxml
from io import BytesIO

import lxml.html
from lxml import etree, objectify
from lxml.builder import E

root = E.root(*(E.item(str(i), n=str(i * i)) for i in range(5)), E("{urn:x}other", "é"))
print(etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="utf-8").decode())
print(root.xpath("sum(//item/@n)"), root.xpath("//x:other/text()", namespaces={"x": "urn:x"}))
transform = etree.XSLT(
    etree.XML("""
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template match="/"><out>
<xsl:for-each select="//item"><v><xsl:value-of select="."/></v></xsl:for-each></out>
</xsl:template></xsl:stylesheet>""")
)
print(str(transform(root)))
schema = etree.RelaxNG(
    etree.XML(
        '<element name="a" xmlns="http://relaxng.org/ns/structure/1.0"><zeroOrMore>'
        '<element name="b"><text/></element></zeroOrMore></element>'
    )
)
print(schema.validate(etree.XML("<a><b>t</b></a>")), schema.validate(etree.XML("<a><c/></a>")))
try:
    etree.fromstring("<a><b></a>")
except etree.XMLSyntaxError as error:
    print(error)
page = lxml.html.fromstring("<p>one <a href='/x'>two</a><br>three")
page.make_links_absolute("http://example.org/")
print(
    lxml.html.tostring(page), [event for event, _ in etree.iterparse(BytesIO(b"<a><b/><c/></a>"))]
)
print(objectify.fromstring("<a><n>5</n></a>").n + 1, etree.LXML_VERSION, etree.LIBXML_VERSION)
