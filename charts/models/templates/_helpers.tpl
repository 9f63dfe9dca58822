{{/* All entries of the catalogue, by name, as JSON. */}}
{{- define "models.catalogue" -}}
{{- $all := dict -}}
{{- range $path, $_ := .Files.Glob "catalogue/*.yaml" -}}
{{- range $key, $entry := ($.Files.Get $path | fromYaml).models -}}
{{- $_ := set $all $key $entry -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/*
Lays the second map over the first, in place: maps are merged, all else is replaced, null takes a field away.
Helm's own mergeOverwrite keeps what should become 0, false or empty.
*/}}
{{- define "models.overlay" -}}
{{- $below := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $below $key -}}
{{- else if kindIs "map" $value -}}
{{- if not (kindIs "map" (get $below $key)) -}}
{{- $_ := set $below $key dict -}}
{{- end -}}
{{- include "models.overlay" (list (get $below $key) $value) -}}
{{- else -}}
{{- $_ := set $below $key $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
The spec of a Model as YAML. Takes root, entry (a spec of the catalogue, or an empty one) and settings (values).
*/}}
{{- define "models.spec" -}}
{{- $defaults := deepCopy (.root.Values.defaults | default dict) -}}
{{- $settings := omit .settings "enabled" "name" "labels" "annotations" -}}
{{- $own := deepCopy .entry -}}
{{- include "models.overlay" (list $own $settings) -}}
{{- $spec := omit $defaults "cache" "secretRef" -}}
{{- if eq (int (dig "gpus" "count" 1 $own)) 0 -}}
{{- $spec = omit $spec "gpus" -}}
{{- end -}}
{{- $uri := dig "source" "uri" "" $own -}}
{{- $source := dict -}}
{{- if and $defaults.cache (regexMatch "^(hf|https|s3|ollama)://" $uri) -}}
{{- $_ := set $source "cache" $defaults.cache -}}
{{- end -}}
{{- if and $defaults.secretRef (hasPrefix "hf://" $uri) -}}
{{- $_ := set $source "secretRef" $defaults.secretRef -}}
{{- end -}}
{{- if $source -}}
{{- $_ := set $spec "source" $source -}}
{{- end -}}
{{- include "models.overlay" (list $spec .entry) -}}
{{- include "models.overlay" (list $spec $settings) -}}
{{- toYaml $spec -}}
{{- end }}

{{/* metadata of an object. Takes root, name and settings. */}}
{{- define "models.metadata" -}}
{{- $labels := deepCopy (.root.Values.commonLabels | default dict) -}}
{{- $annotations := deepCopy (.root.Values.commonAnnotations | default dict) -}}
{{- include "models.overlay" (list $labels (.settings.labels | default dict)) -}}
{{- include "models.overlay" (list $annotations (.settings.annotations | default dict)) -}}
{{- include "models.overlay" (list $labels (dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version)
  "app.kubernetes.io/name" .name
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/managed-by" .root.Release.Service)) -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
