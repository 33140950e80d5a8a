# Native functions (NIF).
# packages: erlang-base erlang-crypto erlang-asn1
erl -noshell -eval '
  io:format("~s~n", [binary:encode_hex(crypto:hash(sha256, <<"abc">>))]),
  io:format("~p~n", [lists:sort([A || {A, _, _} <- crypto:info_lib()])]),
  io:format("~p~n", [crypto:mac(hmac, sha, <<"key">>, <<"text">>)]),
  io:format("~p~n", [element(1, erlang:load_nif("/nonesuch", 0))]),
  io:format("~p~n", [asn1rt_nif:decode_ber_tlv(<<2, 1, 5>>)]),
  halt(3).' 2>&1; echo "$?"
