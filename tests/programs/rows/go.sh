# A plugin of Go.
# packages: golang-go gcc
# mask: unnamed-[0-9a-f]* a hash of the folder
cat >plugin.go <<'END'
package main

import ("fmt"; "sort")

var Count = 5

func Say(name string) string { Count++; words := []string{"b", name, "a"}; sort.Strings(words); return fmt.Sprint(words, Count) }
END
cat >main.go <<'END'
package main

import ("fmt"; "os"; "plugin"; "sync")

func main() {
	library, err := plugin.Open("plugin.so")
	if err != nil { fmt.Println(err); os.Exit(1) }
	say, err := library.Lookup("Say")
	fmt.Println(say.(func(string) string)("x"), err)
	count, _ := library.Lookup("Count")
	fmt.Println(*count.(*int))
	_, err = library.Lookup("Nonesuch")
	fmt.Println(err)
	var wait sync.WaitGroup
	for i := 0; i < 100; i++ { wait.Add(1); go func() { defer wait.Done(); _ = make([]byte, 100000) }() }
	wait.Wait()
	defer func() { fmt.Println(recover()); os.Exit(3) }()
	var pointer *int
	fmt.Println(*pointer)
}
END
export GO111MODULE=off GOCACHE=$PWD/cache GOTOOLCHAIN=local GOFLAGS=-trimpath
env -u LD_PRELOAD go build -buildmode=plugin -o plugin.so plugin.go 2>&1 && env -u LD_PRELOAD go build -o main main.go 2>&1; echo "$?"
./main 2>&1; echo "$?"
