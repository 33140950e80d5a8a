# XS modules by the dozen in one script.
# packages: perl libdbd-sqlite3-perl libxml-libxml-perl
# quick
# emulated: perl
# not: loongarch64 qemu-user asks this system, and not its root, where a program calls statx(2)
perl - <<'END'
use strict; use warnings;
my @modules = qw(
  POSIX Fcntl Socket Encode Encode::JP Encode::KR Encode::Unicode Storable Data::Dumper
  Digest::MD5 Digest::SHA List::Util Time::HiRes Time::Piece MIME::Base64 Compress::Raw::Zlib
  Compress::Raw::Bzip2 IO::Handle File::Glob Cwd Hash::Util Hash::Util::FieldHash I18N::Langinfo
  IPC::SysV Math::BigInt::FastCalc Opcode PerlIO::encoding PerlIO::scalar PerlIO::via
  Sys::Hostname Sys::Syslog Text::Soundex Unicode::Normalize Unicode::Collate attributes mro re
  threads threads::shared B DB_File DBI DBD::SQLite XML::LibXML SDBM_File GDBM_File);
for my $module (@modules) {
  my $file = "$module.pm"; $file =~ s{::}{/}g;
  print "$module ", (eval { require $file } ? "loaded" : "not here"), "\n";
}
print Digest::SHA::sha256_hex("abc"), " ", Digest::MD5::md5_hex("abc"), "\n";
print POSIX::strftime("%Y-%m-%d", gmtime(86400 * 365)), " ", POSIX::floor(-2.5), "\n";
print Encode::encode("euc-jp", "\x{3042}") eq "\xa4\xa2" ? "ok" : "wrong", "\n";
print List::Util::sum(map { $_ ** 2 } 1 .. 10), "\n";
print length(Compress::Raw::Zlib::crc32("abc")), " ", Storable::thaw(Storable::freeze([1, 2, 3]))->[2], "\n";
my $db = DBI->connect("dbi:SQLite:dbname=:memory:", "", "", { RaiseError => 1, PrintError => 0 });
$db->do("create table t (n integer)");
$db->do("insert into t values (?)", undef, $_) for 1 .. 5;
print $db->selectrow_array("select sum(n) from t"), "\n";
eval { $db->do("select nothing from nowhere") }; print $@;
my $document = XML::LibXML->load_xml(string => "<a><b>text</b></a>");
print $document->findvalue("//b"), " ", $document->documentElement->nodeName, "\n";
eval { XML::LibXML->load_xml(string => "<a>") }; print ref $@, "\n";
my $thread = threads->create(sub { Digest::SHA::sha1_hex("in a thread") });
print $thread->join, "\n";
print Unicode::Normalize::NFD("\x{e9}") eq "e\x{301}" ? "ok" : "wrong", "\n";
END
