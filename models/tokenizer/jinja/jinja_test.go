package jinja

import (
	"errors"
	"strings"
	"testing"
)

// data are the variables of the tests.
func data(t testing.TB) map[string]any {
	t.Helper()
	vars := map[string]any{"bos": "<s>", "n": 3}
	for name, text := range map[string]string{
		"messages": `[{"role": "system", "content": " Be kind. "}, {"role": "user", "content": " hi\n"},
			{"role": "assistant", "content": "<think>\nhm\n</think>\n\nyo "}, {"role": "user", "content": "it's <b>"}]`,
		"tools": `[{"name": "get", "args": {"city": "Paris", "n": 1.5, "ok": true, "none": null}}]`,
	} {
		v, err := FromJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		vars[name] = v
	}
	return vars
}

// renderings were made by Jinja2 3.1.6 with trim_blocks, lstrip_blocks and
// loop controls, and tojson as json.dumps.
var renderings = []struct{ name, template, want string }{
	{"text",
		"a\n b \n\n",
		"a\n b \n"},
	{"whitespace",
		"  {% if true %}\n    a\n  {% endif %}\nb {%- if true %} c {% endif -%}  \n d\n{#  comment #}\ne  {# c2 -#}\n   f\n\t{%+ if true %}g{% endif +%}\nh {{ 'i' -}}   \nj",
		"    a\nb c d\ne  f\n\tg\nh ij"},
	{"blocks after text",
		"x {% if true %} y {% endif %} z\n{% if false %}n{% endif %}\nend",
		"x  y  z\nend"},
	{"loop",
		"{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }} {{ m.role }}{% if not loop.last %}, {% endif %}{% endfor %}",
		"1/4TrueFalse3 system, 2/4FalseFalse2 user, 3/4FalseFalse1 assistant, 4/4FalseTrue0 user"},
	{"loop filter, else",
		"{% for i in [1,2,3] if i != 2 %}{{ loop.index }}{{ i }}{{ loop.previtem }}{{ loop.nextitem is defined }} {% endfor %}{% for i in [] %}x{% else %}empty{% endfor %}",
		"11True 231False empty"},
	{"break, continue",
		"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
		"023"},
	{"scope",
		"{% set x = 5 %}{% for i in [1,2] %}{% set x = i %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 7 %}{% endif %}{{ x }}",
		"1257"},
	{"namespace",
		"{% set ns = namespace(a=1, b='x') %}{% for i in [1,2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}",
		"4x"},
	{"set block, tuple",
		"{% set b %}\n hello {{ 1 }}\n{% endset %}[{{ b }}]{% set a, c = 1, 2 %}{{ a }}{{ c }}{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}:{{ v }}{{ ',' if not loop.last }}{% endfor %}",
		"[ hello 1\n]12x:1,y:2"},
	{"macro",
		"{% macro show(x, pre=\"-\", post=\"\") -%}\n{% if x is string %}{{ pre }}{{ x }}{% elif x is mapping %}{% for k, v in x.items() %}{{ k }}={{ show(v, pre=\"+\") }};{% endfor %}{% elif x is iterable %}{% for i in x %}{{ show(i) }}{% endfor %}{% else %}{{ x }}{% endif %}{{ post }}\n{%- endmacro %}{{ show(messages) }}|{{ show(tools, post=\"!\") }}",
		"role=+system;content=+ Be kind. ;role=+user;content=+ hi\n;role=+assistant;content=+<think>\nhm\n</think>\n\nyo ;role=+user;content=+it's <b>;|name=+get;args=city=+Paris;n=1.5;ok=True;none=None;;!"},
	{"arithmetic",
		"{{ 1 + 2 * 3 - 4 // 3 }} {{ -7 % 3 }} {{ -7 // 2 }} {{ 7 / 2 }} {{ 2.0 * 3 }} {{ 'ab' * 3 }} {{ [1, 2] + [3] }} {{ 1e3 }} {{ 1e20 }} {{ 0.00001 }} {{ true + 1 }}",
		"6 2 -4 3.5 6.0 ababab [1, 2, 3] 1000.0 1e+20 1e-05 2"},
	{"logic",
		"{{ 1 < 2 < 3 }} {{ not 1 == 2 }} {{ 'x' in 'xyz' and 'q' not in 'xyz' }} {{ 5 if false }}{{ true and 'yes' or 'no' }} {{ none or 'n' }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1] == [1] }} {{ 'a' == 1 }}",
		"True True True yes n True True True True False"},
	{"python literals",
		"{{ {'a': 1, 'b': [true, none]} }} {{ \"a'b\" }} {{ [\"a'b\", 'c\"d', 'e\\n', 'é'] }} {{ (1, 2) | length }} {{ 'a' 'b' }} {{ 'a\\tb\\\\n\\u00e9' }}",
		"{'a': 1, 'b': [True, None]} a'b [\"a'b\", 'c\"d', 'e\\n', 'é'] 2 ab a\tb\\né"},
	{"slices",
		"{{ 'abc'[1] }}{{ 'abcdef'[::-1] }}{{ 'abcdef'[1:-1:2] }}{{ messages[-1].role }}{{ messages[1:] | length }}{{ messages[::-1][0].role }}{{ messages[:9] | length }}{{ [1,2,3][-2:] }}{{ [1,2,3][5:] }}",
		"bfedcbabduser3user4[2, 3][]"},
	{"undefined",
		"{{ nope }}{{ nope | default('d') }} {{ '' | default('e', true) }} {{ nope is defined }} {{ messages[0].nope is undefined }} {{ nope is none }} {% if nope %}x{% endif %}{% for i in nope %}{% endfor %}{{ messages[9] is defined }}",
		"d e False True False False"},
	{"tests",
		"{{ 3 is odd }} {{ 10 is divisibleby 5 }} {{ 'a' is string }} {{ 1 is number }} {{ tools is iterable }} {{ tools[0] is mapping }} {{ true is true }} {{ 'x' is in ['x'] }} {{ none is not none }} {{ 1 is not string }} {{ 2 is gt 1 }}",
		"True True True True True True True True False True True"},
	{"filters",
		"{{ ' x ' | trim }}.{{ 'hello world' | title }} {{ 'hELLO' | capitalize }} {{ 'l1\\nl2\\n\\nl3' | indent(2) }} {{ 'l1\\nl2' | indent(2, true) }} {{ [1,2,3] | reverse | list }} {{ 'abc' | reverse }} {{ '12' | int + 1 }} {{ [3, 4] | first }}{{ [3, 4] | last }} {{ [1, 'a'] | join('-') }} {{ 'a' ~ 1 ~ none ~ true }}",
		"x.Hello World Hello l1\n  l2\n\n  l3   l1\n  l2 [3, 2, 1] cba 13 34 1-a a1NoneTrue"},
	{"filters over items",
		"{{ messages | map(attribute='role') | join('/') }} {{ messages | selectattr('role', 'in', ['user']) | list | length }} {{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ [1, 0, 2] | select | list }} {{ [1, 2] | reject('odd') | list }}",
		"system/user/assistant/user 2 ['system', 'assistant'] ['A', 'B'] [1, 2] [2]"},
	{"string methods",
		"{{ 'Hello World'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ ' x '.strip() ~ '.' }} {{ 'xxhixx'.strip('x') }} {{ 'aXbX'.replace('X', 'y', 1) }} {{ 'ab'.startswith(('x', 'a')) }} {{ 'a\\nb\\n'.splitlines() }} {{ '/'.join(['a', 'b']) }} {{ 'Ab'.upper() }}{{ 'Ab'.lower() }} {{ 'pre-x'.removeprefix('pre-') }} {{ 'x'.endswith('y') }}",
		"['Hello', 'World'] ['a', 'b,c'] x. hi aybX True ['a', 'b'] a/b ABab x False"},
	{"dict methods",
		"{{ messages[0].get('nope', 'dd') }} {{ messages[0].keys() | list }} {{ tools[0]['args'].values() | list }}",
		"dd ['role', 'content'] ['Paris', 1.5, True, None]"},
	{"tojson",
		"{{ tools | tojson }} {{ tools | tojson(indent=2) }} {{ messages[3].content | tojson }} {{ [] | tojson(indent=2) }} {{ {'a': {}} | tojson(indent=1) }} {{ 'é\\u2028\\\\u2028\"' | tojson }}",
		"[{\"name\": \"get\", \"args\": {\"city\": \"Paris\", \"n\": 1.5, \"ok\": true, \"none\": null}}] [\n  {\n    \"name\": \"get\",\n    \"args\": {\n      \"city\": \"Paris\",\n      \"n\": 1.5,\n      \"ok\": true,\n      \"none\": null\n    }\n  }\n] \"it's <b>\" [] {\n \"a\": {}\n} \"é\u2028\\\\u2028\\\"\""},
	{"thinking",
		"{% for m in messages %}{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}|{{ m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}{% endif %}{% endfor %}",
		"yo |hm"},
}

func TestRenderEqualsJinja2(t *testing.T) {
	t.Parallel()
	for _, c := range renderings {
		t.Run(c.name, func(t *testing.T) {
			tmpl, err := Parse(c.template)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tmpl.Render(data(t))
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ template, want string }{
		{"{{ a", "not closed"},
		{"\n\n{% if %}", "line 3"},
		{"{% if a %}", "endif"},
		{"{% for a b %}", `expected "in"`},
		{"{% include 'x' %}", `tag "include" is not supported`},
		{"{% import 'x' as y %}", "not supported"},
		{"{% extends 'x' %}", "not supported"},
		{"{% for a in b recursive %}", "expected"},
		{"{{ a | nosuch }}", `filter "nosuch"`},
		{"{{ a is nosuch }}", `test "nosuch"`},
		{"{% break %}", "outside of a loop"},
		{"{# a", "not closed"},
		{"{{ 'a }}", "not closed"},
		{"{{ '\\u12z4' }}", "escape"},
		{"{{ 99999999999999999999 }}", "too large"},
		{"{{ a[] }}", "index"},
		{"{{ a[1:2:3:4] }}", "expected ]"},
		{"{{ [1 2] }}", "expected ,"},
		{"{{ ? }}", "unexpected"},
		{"{{ " + strings.Repeat("(", 1000) + strings.Repeat(")", 1000) + " }}", "nested"},
		{"{{ " + strings.Repeat("-", 1000) + "1 }}", "nested"},
		{"{{ " + strings.Repeat("not ", 1000) + "1 }}", "nested"},
		{strings.Repeat("{% if a %}", 1000), "nested"},
		{"{{ a" + strings.Repeat(".b", 1000) + " }}", "in a row"},
		{strings.Repeat("x", maxSource+1), "bytes"},
	} {
		_, err := Parse(c.template)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: error %v, want one with %q", c.template, err, c.want)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ template, want string }{
		{"a\n{{ nope.x }}", "line 2: nope is undefined"},
		{"{{ nope() }}", "nope is undefined"},
		{"{{ 'a' + 1 }}", "a string + a number"},
		{"{{ 1 // 0 }}", "division by zero"},
		{"{{ 1 < 'a' }}", "no order"},
		{"{% for i in 5 %}{% endfor %}", "not a sequence"},
		{"{% set x.y = 1 %}", "not a namespace"},
		{"{% set a, b = [1] %}", "unpack"},
		{"{{ bos() }}", "cannot be called"},
		{"{{ 'a'.split(1) }}", "split"},
		{"{{ messages | tojson(indent=99) }}", "filter tojson"},
		{"{{ range(1, 2, 0) }}", "range"},
	} {
		tmpl, err := Parse(c.template)
		if err != nil {
			t.Errorf("%q: %v", c.template, err)
			continue
		}
		if _, err := tmpl.Render(data(t)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.template, err, c.want)
		}
	}
}

func TestRaised(t *testing.T) {
	t.Parallel()
	tmpl, err := Parse("{% if true %}{{ raise_exception('roles must alternate') }}{% endif %}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = tmpl.Render(nil)
	var raised *Raised
	if !errors.As(err, &raised) || raised.Message != "roles must alternate" {
		t.Errorf("error %v, want a Raised", err)
	}
}

// Templates that would run, or grow, without end must stop soon.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"range":              "{% for i in range(10000000000) %}{% endfor %}",
		"nested loops":       "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}",
		"recursive macro":    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"recursion in sums":  "{% macro f() %}{{ f()" + strings.Repeat(" + 'a'", 4000) + " }}{% endmacro %}{{ f() }}",
		"mutual recursion":   "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
		"doubling a string":  "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
		"repeating a string": "{{ 'x' * 99999999999 }}",
		"replacing":          "{% set s = 'x' * 1000000 %}{{ s.replace('x', s) }}",
		"doubling a list":    "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
		"shared lists":       "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
		"shared lists, JSON": "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
		"shared, compared":   "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
		"deep list":          "{% set ns = namespace(s=[1]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
		"joining":            "{{ range(100000) | join('x' * 10000) }}",
		"splitting":          "{% for i in range(999) %}{{ ('x ' * 10000).split() | length }}{% endfor %}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmpl, err := Parse(src)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tmpl.Render(nil); !errors.Is(err, ErrLimit) {
				t.Errorf("error %v, want ErrLimit", err)
			}
		})
	}
}

func TestFromJSON(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "{", "[1", "1 2", `{"a" 1}`, strings.Repeat("[", 1000), "1e999"} {
		if v, err := FromJSON([]byte(bad)); err == nil {
			t.Errorf("%.20q: %v, want an error", bad, v)
		}
	}
}

// FuzzTemplate: no template may panic or run away.
func FuzzTemplate(f *testing.F) {
	for _, c := range renderings {
		f.Add(c.template)
	}
	f.Fuzz(func(t *testing.T, src string) {
		tmpl, err := Parse(src)
		if err != nil {
			return
		}
		_, _ = tmpl.Render(data(t))
	})
}
