package openai

// Requests are the bodies of requests, by the name that the description of the API has for
// each: values of the types that they are read into.
func Requests() map[string]any {
	return map[string]any{
		"ChatRequest":       chatRequest{},
		"CompletionRequest": completionRequest{},
		"EmbeddingRequest":  embeddingRequest{},
		"ImageRequest":      imageRequest{},
		"ResponseRequest":   responseRequest{},
	}
}

// Answers are the bodies of answers in the same way. What varies with the request inside
// them is described by hand.
func Answers() map[string]any {
	return map[string]any{
		"OpenAIError": ErrorBody{},
		"Completion":  completion{},
		"ChatChoice":  chatChoice{},
		"TextChoice":  textChoice{},
		"Embeddings":  embeddings{},
		"ImageAnswer": imageAnswer{},
		"ImageDatum":  imageDatum{},
		"Response":    response{},
		"File":        fileObject{},
	}
}
