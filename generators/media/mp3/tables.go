package mp3

// The tables of ISO/IEC 11172-3 (MPEG-1) and 13818-3 (MPEG-2), Layer III.

// code is a table of Huffman codes for pairs of values, or for the four bits of quadruples.
// A prefix code is given by its symbols, from that of only zeros to that of only ones, and
// the length of each.
type code struct {
	number  int    // table_select, or 32 and 33 for quadruples
	symbols string // two digits to base 16: x and y, or 0 and the bits
	lengths string // a digit to base 36
}

// codes are the tables that pairs are written by; those with number 16 and 24 serve up to 23
// and 31, with ever more bits behind what is 15 or larger.
var codes = [...]code{
	{
		number:  1,
		symbols: "11011000",
		lengths: "3321",
	},
	{
		number:  2,
		symbols: "220212212011011000",
		lengths: "665553331",
	},
	{
		number:  3,
		symbols: "220212212010110100",
		lengths: "665553222",
	},
	{
		number:  5,
		symbols: "33233231130330221221022011011000",
		lengths: "8876777766663331",
	},
	{
		number:  6,
		symbols: "33032332301331220212212001111000",
		lengths: "7766655554443233",
	},
	{
		number:  7,
		symbols: "554554533544255215510534504333244214414004233203133130221221022011011000",
		lengths: "aaaa99998899899887778888777765664331",
	},
	{
		number:  8,
		symbols: "555445533544255205155134435033244214410440233213310330220220122111011000",
		lengths: "bba9aa999889999888788888888666442332",
	},
	{
		number:  9,
		symbols: "554535535405442552155134435004244233401441233213310330220212212011011000",
		lengths: "998899888877788777766665566554443333",
	},
	{
		number: 10,
		symbols: "776776577566477456653773465554632772640770624535065344177136262552155134431661600550244233041441" +
			"40233203133130221221022011011000",
		lengths: "bbbbbbaaaaaaabba99aa99aa9aa8899aa99aa888999999888888777766664331",
	},
	{
		number: 11,
		symbols: "776776756647745755566537734645543553277264077117703663604425520515622606166151345043332442144104" +
			"40233213310330222112022011011000",
		lengths: "aaaaaaabbaa999aaaa8899788888999987887788899888888776677654553332",
	},
	{
		number: 12,
		symbols: "776776577566477465563773552772466417710770366345544406052662611660355325521551344350042442143341" +
			"23324003301331221221022000110110",
		lengths: "aa99999998899888888998888899777888888777788777666677655544554333",
	},
	{
		number: 13,
		symbols: "fefcfdedffefdfeecfdebffbcedcafe9ecddfacdbeeb9ff9eabddb8ff8ccae9e8e7f7ef7daadbccbf66fe85f9dd9f5e7" +
			"acbb4ff4cae6f33f8dd82ff26e9c0fc95eab7dd74ec8d63eb99baa1ff1f0bae5e48c6de3e22e0e1ee1e05dd57cc74d8b" +
			"b8d49aa96cc63dd37b2dd21db75cc5997ac3a7974bd10dd08aa84cc46bb63c2cc25bb5891cc1980cc0b46aa6793bb388" +
			"5a2ba569a47887947776b21bb10bb0964a3aa359952aa21aa10a68a08649933958856729925775388366477456657319" +
			"910990488472466428821837271771550770366345542662358108801661066053442552051551344350244233144104" +
			"40233213310330221221022011011000",
		lengths: "jjihgggggggggghhffggffffffffffggfggeeffffeeeeeeeeeeeffedeeddeedeedeedeeddeecccddddddcddccddddddd" +
			"dddddccddccccddddcddcbccccccccbbbbccbbccbccccbbccbccbccbccaaabbbbbbbbaaaabbabbabbbbaabbaabbbbbb9" +
			"9aaaaabb999aa99aaaaaaaaaa8999999aa999889999998788887777766664431",
	},
	{
		number: 15,
		symbols: "ffeffedfeefdcffcdeedbffbceecddaffabeebcddc9ff9eabddb8ff8cc9ee97ff7addabc6fae0fcbf68ee85f9df57ee7" +
			"accabbd98d4ff43ff3d8e62ff26ef01ff19cc95eabbae57dd74ee48cc83e6dd6e39bb92eaae21ee10ee05dd57cc74d8b" +
			"d4b89aa96cc63dd3d22d0d1d7bb7d15cd0c58aa84cc46bb6990c3cc37aa7a6c00bc22c5bb51c8998c14bb46a3b79b397" +
			"882b5ab2a51bb1b069964aa478873aa359952aa21aa10aa0688649943993770958852967769291199048845775388366" +
			"472882188174088056653773462772641755710770366345542662160660356153442552155105503443244233411404" +
			"23324003133130221221022011011000",
		lengths: "ddddcddddddcddcccccccccccccccccccccccddbbccccbbbbbbccbbbbbbbbccbbbbbbbbbbbbbbbbbbbbbbbbbccbbbbbb" +
			"abbbbbbaabbaaaabbaaaaaaabbaaaaabb9aaaaaaaaaaaa9aaaa9aa9aaaaaaaa9999999aa999999aa9999998999999999" +
			"9888899999999888888998888888998788777788777776776677666555553443",
	},
	{
		number: 16,
		symbols: "effedffdcffcbffbaffa9ff9f88f7ff76ff6ff5ff54ff4f3f03fceecdddee9ead9eeedebbecddcdbaeccadda7eaccac9" +
			"7d5ebdf22f0f1ff19ebccb8ee89de7bb8dd86ee69cabbae5d74ee48cc83e6dd69bb9aae1d4b8a97bb7d0e30ee05dd57c" +
			"c74d8b9a6cc63d5cc50d8aa8994cb67a3c5b891cc09879e22e1ed32dd2d13b97881dc46bc3a72cc2b5c10c4bb46aa6b3" +
			"5aa52bb21bb10bb069964aa47887a33a592a9568a1867794495767a21a0aa03993588529927609199190488475388366" +
			"288247741881800856377365462772645507177170366345542662166106605335442552511505344350244233144104" +
			"40233213310330221221022011011000",
		lengths: "bbbbbbbbabbbbaaaaa8aa9999aghhffggeffeeffeeffffeffed89988deeeeeeeeeeddeeeedeedddeeeeddeedeecddddd" +
			"dddddddddcddddddcddccddbcccccccddbccccbccccccccbccbbbbccccccccbccbccbccbccbaabbbbbbaabbaabbbbbbb" +
			"babbaaabbaabbaabba99aaaaaa999aa9aa998999999998899887788766664431",
	},
	{
		number: 24,
		symbols: "effedffdcffcbffbfaaf9ff9f88f7ff76ff65ff54ff43ff32ff2f11ff00feedeedceecddbeebcddcaeeabddbcc9ee9ad" +
			"dabccb8ee89dd97ee7acffcabb8dd80ee00de66e9cc95ebae5ab7dd7e48cc84e2e3e6dd6e39bb9aae21ee15dd57cc74d" +
			"8bb8d49aa96cc63dd32dd21d7bb7d15cc58aa8994cc46bb6d00c3cc37aa72cc25bb51c8998c14bc00b3bb00a1ab46aa6" +
			"7997a00990b3882b5ab2a51bb16996a44a78873aa359952aa2a168867749943993588529677692199148845775388366" +
			"288218477481088056651707707337277246645571366345542662166106603553442552150550513443244233144104" +
			"40233213310330221221022011011000",
		lengths: "888888887887788777777777777889bbbbbbbbbbbbbbbbbbbbbbbbbbbb4bbbbccbabbaaaabbaaaabbaaaaaaaaaaaaaaa" +
			"aaaaaaaaaaaaaaaaaaaaaaaabbaaaaaaaaaaaaabbabba9aaaabba99aa9aaaa99aa999999999999999999999999999999" +
			"999999aa999aa899888888888888899888888997887777788776677655664444",
	},
	{
		number:  32,
		symbols: "0b0f0d0e07050906030a0c0201040800",
		lengths: "6666665555544441",
	},
	{
		number:  33,
		symbols: "0f0e0d0c0b0a09080706050403020100",
		lengths: "4444444444444444",
	},
}

// window is the first half of the synthesis window D of the filterbank, in 1/65536; the
// second half mirrors it, with the sign changed but at multiples of 64.
var window = [257]int32{
	0, -1, -1, -1, -1, -1, -1, -2, -2, -2, -2, -3, -3, -4, -4, -5,
	-5, -6, -7, -7, -8, -9, -10, -11, -13, -14, -16, -17, -19, -21, -24, -26,
	-29, -31, -35, -38, -41, -45, -49, -53, -58, -63, -68, -73, -79, -85, -91, -97,
	-104, -111, -117, -125, -132, -139, -147, -154, -161, -169, -176, -183, -190, -196, -202, -208,
	213, 218, 222, 225, 227, 228, 228, 227, 224, 221, 215, 208, 200, 189, 177, 163,
	146, 127, 106, 83, 57, 29, -2, -36, -72, -111, -153, -197, -244, -294, -347, -401,
	-459, -519, -581, -645, -711, -779, -848, -919, -991, -1064, -1137, -1210, -1283, -1356, -1428, -1498,
	-1567, -1634, -1698, -1759, -1817, -1870, -1919, -1962, -2001, -2032, -2057, -2075, -2085, -2087, -2080, -2063,
	2037, 2000, 1952, 1893, 1822, 1739, 1644, 1535, 1414, 1280, 1131, 970, 794, 605, 402, 185,
	-45, -288, -545, -814, -1095, -1388, -1692, -2006, -2330, -2663, -3004, -3351, -3705, -4063, -4425, -4788,
	-5153, -5517, -5879, -6237, -6589, -6935, -7271, -7597, -7910, -8209, -8491, -8755, -8998, -9219, -9416, -9585,
	-9727, -9838, -9916, -9959, -9966, -9935, -9863, -9750, -9592, -9389, -9139, -8840, -8492, -8092, -7640, -7134,
	6574, 5959, 5288, 4561, 3776, 2935, 2037, 1082, 70, -998, -2122, -3300, -4533, -5818, -7154, -8540,
	-9975, -11455, -12980, -14548, -16155, -17799, -19478, -21189, -22929, -24694, -26482, -28289, -30112, -31947, -33791, -35640,
	-37489, -39336, -41176, -43006, -44821, -46617, -48390, -50137, -51853, -53534, -55178, -56778, -58333, -59838, -61289, -62684,
	-64019, -65290, -66494, -67629, -68692, -69679, -70590, -71420, -72169, -72835, -73415, -73908, -74313, -74630, -74856, -74992,
	75038,
}

// rate is a sampling rate that a stream can have.
type rate struct {
	hertz int
	low   bool    // MPEG-2: one granule a frame
	index uint    // in the header
	bands [23]int // where scale factor bands of long blocks begin
}

var rates = [...]rate{
	{44100, false, 0, [23]int{0, 4, 8, 12, 16, 20, 24, 30, 36, 44, 52, 62, 74, 90, 110, 134, 162, 196, 238, 288, 342, 418, 576}},
	{48000, false, 1, [23]int{0, 4, 8, 12, 16, 20, 24, 30, 36, 42, 50, 60, 72, 88, 106, 128, 156, 190, 230, 276, 330, 384, 576}},
	{32000, false, 2, [23]int{0, 4, 8, 12, 16, 20, 24, 30, 36, 44, 54, 66, 82, 102, 126, 156, 194, 240, 296, 364, 448, 550, 576}},
	{22050, true, 0, [23]int{0, 6, 12, 18, 24, 30, 36, 44, 54, 66, 80, 96, 116, 140, 168, 200, 238, 284, 336, 396, 464, 522, 576}},
	{24000, true, 1, [23]int{0, 6, 12, 18, 24, 30, 36, 44, 54, 66, 80, 96, 114, 136, 162, 194, 232, 278, 332, 394, 464, 540, 576}},
	{16000, true, 2, [23]int{0, 6, 12, 18, 24, 30, 36, 44, 54, 66, 80, 96, 116, 140, 168, 200, 238, 284, 336, 396, 464, 522, 576}},
}

// Bit rates in kbit/s by their index in the header.
var (
	highBitrates = [...]int{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320}
	lowBitrates  = [...]int{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160}
)

// highLengths are the bits of scale factors of bands 0 to 10 and 11 to 20, by
// scalefac_compress.
var highLengths = [16][2]int{
	{0, 0}, {0, 1}, {0, 2}, {0, 3}, {3, 0}, {1, 1}, {1, 2}, {1, 3}, {2, 1}, {2, 2}, {2, 3}, {3, 1}, {3, 2}, {3, 3}, {4, 2}, {4, 3},
}
