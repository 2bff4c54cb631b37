package checkpoint

import "maps"

// describe adds the scheduler and the index of a pipeline's folder.
func (l *Layout) describe() {
	if l.Family == "" {
		return
	}
	l.configs["scheduler"] = l.scheduler()
	scheduler := l.scheduler()["_class_name"]
	index := map[string]any{"_class_name": l.pipeline(), "scheduler": []any{"diffusers", scheduler}}
	for name, p := range l.parts {
		index[name] = []string{p.library, p.class}
	}
	tokenizers := map[Family]map[string]string{
		SD1:  {"tokenizer": "CLIPTokenizer"},
		SD2:  {"tokenizer": "CLIPTokenizer"},
		SDXL: {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer"},
		SD3:  {"tokenizer": "CLIPTokenizer", "tokenizer_2": "CLIPTokenizer", "tokenizer_3": "T5TokenizerFast"},
		Flux: {"tokenizer": "CLIPTokenizer", "tokenizer_2": "T5TokenizerFast"},
	}
	for name, class := range tokenizers[l.Family] {
		index[name] = []string{"transformers", class}
	}
	if l.Family == SDXL {
		index["force_zeros_for_empty_prompt"] = true
	}
	l.configs["model_index"] = index
}

// pipeline returns the class of the pipeline.
func (l *Layout) pipeline() string {
	inpaint := l.parts["unet"].config["in_channels"] == 9
	switch l.Family {
	case SDXL:
		if inpaint {
			return "StableDiffusionXLInpaintPipeline"
		}
		return "StableDiffusionXLPipeline"
	case SD3:
		return "StableDiffusion3Pipeline"
	case Flux:
		return "FluxPipeline"
	}
	if inpaint {
		return "StableDiffusionInpaintPipeline"
	}
	return "StableDiffusionPipeline"
}

// scheduler returns the configuration that the family's own models come with.
func (l *Layout) scheduler() map[string]any {
	config := map[string]any{"num_train_timesteps": 1000}
	switch l.Family {
	case SD3:
		maps.Copy(config, map[string]any{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
	case Flux:
		maps.Copy(config, map[string]any{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0})
		if l.parts["transformer"].config["guidance_embeds"] == true { // dev, and not schnell
			maps.Copy(config, map[string]any{
				"shift": 3.0, "use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 1.15,
				"base_image_seq_len": 256, "max_image_seq_len": 4096,
			})
		}
	default:
		maps.Copy(config, map[string]any{
			"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
			"prediction_type": "epsilon", "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "clip_sample": false,
		})
		if l.Family == SDXL {
			config["_class_name"], config["timestep_spacing"] = "EulerDiscreteScheduler", "leading"
		}
	}
	return config
}
