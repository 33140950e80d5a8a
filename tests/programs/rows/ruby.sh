# Extension modules, of the standard library and of a gem; foreign functions.
# packages: ruby ruby-nokogiri
# emulated: ruby
# not: loongarch64 qemu-user asks this system, and not its root, where a program calls statx(2)
ruby <<'END'
%w[openssl nokogiri fiddle/import zlib digest stringio bigdecimal socket etc json psych ripper
   date io/console strscan objspace coverage pty readline syslog io/nonblock io/wait nkf
   continuation erb/escape monitor racc/parser].each do |name|
  begin
    require name
    puts "#{name} loaded"
  rescue LoadError
    puts "#{name} not here"
  end
end
puts OpenSSL::Digest::SHA256.hexdigest("abc"), Zlib.crc32("hello"), BigDecimal("2").sqrt(20).to_s
document = Nokogiri::XML("<a><b>text</b></a>")
puts document.at_xpath("//b").text, Nokogiri::HTML("<p>one<p>two").css("p").size
puts Psych.load("- 1\n- [2, 3]").inspect, JSON.generate({ "a" => [1, nil] })
module C
  extend Fiddle::Importer
  dlload Fiddle.dlopen("libm.so.6")
  extern "double cos(double)"
end
puts C.cos(0.5)
begin
  Fiddle.dlopen("libnonesuch.so")
rescue Fiddle::DLError => error
  puts error.message
end
begin
  Fiddle.dlopen("libz.so.1")["nonesuch"]
rescue Fiddle::DLError => error
  puts error.message
end
puts Etc.getpwuid(0).name, Ripper.sexp("1 + 1").first
key = OpenSSL::PKey::EC.generate("prime256v1")
puts key.dsa_verify_asn1("x" * 32, key.dsa_sign_asn1("x" * 32))
END
