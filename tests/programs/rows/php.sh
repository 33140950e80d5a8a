# Extensions, opened with RTLD_DEEPBIND.
# packages: php-cli php-sqlite3 php-xml php-mbstring
php <<'END'
<?php
echo implode(" ", get_loaded_extensions()), "\n";
$base = new PDO("sqlite::memory:");
echo $base->query("select 6 * 7")->fetchColumn(), "\n";
$document = new DOMDocument(); $document->loadXML("<a><b>text</b></a>");
echo (new DOMXPath($document))->evaluate("string(//b)"), " ", mb_strtoupper("äbc"), "\n";
try { new SimpleXMLElement("<a>"); } catch (Throwable $error) { echo get_class($error), "\n"; }
echo json_encode(simplexml_load_string("<a><b>1</b></a>")), " ", hash("xxh3", "abc"), "\n";
exit(3);
END
echo "$?"
php -d extension=nonesuch -r 'echo 1;' 2>&1; echo "$?"
