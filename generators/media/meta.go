package media

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Meta is what a file says about how its picture was made.
type Meta struct {
	// Parameters is the text that AUTOMATIC1111's web UI writes and many programs read.
	Parameters string
	// Record is ours; in a file of another program it is read from Parameters as far as it
	// says the same things.
	Record *Record
	// Origin is how much of the picture a model made.
	Origin Origin
}

// Record is what makes the same picture again: with these, POST /v1/jobs is given it. It
// has nothing in it that differs between two makings of the same picture.
type Record struct {
	Generator string          `json:"generator"` // "Helicon", or the program that wrote the file
	Task      string          `json:"task"`
	Model     string          `json:"model,omitempty"`
	Digest    string          `json:"digest,omitempty"` // of the model's files
	Seed      uint64          `json:"seed"`
	Input     json.RawMessage `json:"input"`
}

// Origin says how a picture came about, in IPTC's terms.
type Origin string

// The origins.
const (
	Unknown   Origin = ""
	Generated Origin = "trainedAlgorithmicMedia"              // by a model alone
	Composite Origin = "compositeWithTrainedAlgorithmicMedia" // by a model from a picture
	Enhanced  Origin = "algorithmicallyEnhanced"              // the picture itself, worked over
)

// synthetic reports whether a label has to say that a model made the picture.
func (o Origin) synthetic() bool { return o == Generated || o == Composite }

// maxText bounds one text of the metadata that is read, in bytes.
const maxText = 1 << 20

func (m *Meta) setParameters(text string) {
	if m.Parameters == "" && len(text) <= maxText && utf8.ValidString(text) {
		m.Parameters = strings.TrimRight(text, "\x00")
	}
}

func (m *Meta) setRecord(text []byte) {
	r := new(Record)
	if len(text) > maxText || m.Record != nil || json.Unmarshal(text, r) != nil || r.Task == "" {
		return
	}
	m.Record = r
}

// Names in an XMP packet (ISO 16684-1): IPTC's digital source type, and the label that
// GB 45438-2025 asks of pictures made by models.
const (
	sourceTypes = "http://cv.iptc.org/newscodes/digitalsourcetype/"
	labelName   = "TC260:AIGC"
)

// readXMP takes the origin from an XMP packet.
func (m *Meta) readXMP(packet []byte) {
	if len(packet) > maxText {
		return
	}
	for _, o := range []Origin{Generated, Composite, Enhanced} {
		if bytes.Contains(packet, []byte(sourceTypes+string(o))) {
			m.Origin = o
			return
		}
	}
	if bytes.Contains(packet, []byte(labelName)) {
		m.Origin = Composite // at least in part
	}
}

// xmp writes the origin as an XMP packet, with the label where a model made the picture.
// Its number for the content follows from the record: the same picture, the same bytes.
func (m *Meta) xmp() ([]byte, error) {
	label := ""
	if m.Origin.synthetic() {
		number := sha256.Sum256([]byte(m.Parameters))
		if m.Record != nil {
			record, err := m.Record.encode()
			if err != nil {
				return nil, err
			}
			number = sha256.Sum256(record)
		}
		aigc, err := json.Marshal(struct {
			Label           string
			ContentProducer string
			ProduceID       string
		}{"1", "Helicon", hex.EncodeToString(number[:16])})
		if err != nil {
			return nil, err
		}
		label = fmt.Sprintf("<%s>%s</%s>", labelName, strings.ReplaceAll(string(aigc), `"`, "&quot;"), labelName)
	}
	return fmt.Appendf(nil, `<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">`+
		`<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" `+
		`xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" `+
		`Iptc4xmpExt:DigitalSourceType="%s%s">%s</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>`,
		sourceTypes, m.Origin, label), nil
}
